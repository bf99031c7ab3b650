"""Calls of the kernels of normalisation, for checked arrays: C-contiguous, of one dtype, and not empty."""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext import lrn as _lrn, norm as _ext
from fastconv.checks import arrays as _arrays
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace

#: The time relative to a copy of as many bytes; normalisation reads its input twice.
_SLOWNESS = 1
#: The same for local response normalisation, which computes roots.
_LRN_SLOWNESS = 4
#: Bytes of the rows of a thread in local response normalisation, so that they stay in its second-level cache.
_SPACE_BYTES = 1 << 18
#: The most numbers of a row.
_WIDEST, _NARROWEST = 1024, 64


def _sizes(x: np.ndarray, groups: int = 1) -> tuple[int, int, int, int]:
    """The shape (N, C, S, G) for the kernels."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups


def has_negative(moments: np.ndarray) -> bool:
    """Whether any number of a contiguous float64 array is below 0."""
    return _ext.has_negative(moments)


def batch_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, moments: tuple[np.ndarray, ...], eps: float, train: bool
) -> np.ndarray:
    """Normalise x by `moments`: mean, variance and 1 / sqrt(variance + eps), (C,).

    The last of these is written, and with `train` all three. Moments, gamma and beta are float64.
    """
    y = _memory.empty(x.shape, x.dtype)
    sizes = _sizes(x)
    _threads.share(
        _ext.batch_forward,
        (_arrays.DTYPES[x.dtype], x, y, gamma, beta, *moments, sizes, eps, train, _isa.current),
        items=_channel_items(sizes),
        work=_SLOWNESS * x.nbytes,
        threads=_threads.get_threads(),
    )
    return y


def batch_backward(
    dout: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, scale: np.ndarray, train: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dgamma, dbeta), given 1 / sqrt(variance + eps) as `scale`."""
    dx, sums = _memory.empty(x.shape, x.dtype), np.empty((x.shape[1], 2))
    sizes = _sizes(x)
    _threads.share(
        _ext.batch_backward,
        (_arrays.DTYPES[x.dtype], dout, x, dx, gamma, mean, scale, sums, sizes, train, _isa.current),
        items=_channel_items(sizes),
        work=2 * _SLOWNESS * x.nbytes,
        threads=_threads.get_threads(),
    )
    return dx, sums[:, 1], sums[:, 0]


def _channel_items(sizes: tuple[int, int, int, int]) -> int:
    """The number of items of batch normalisation: channels, or blocks of channels that have a single cell."""
    _, C, S, _ = sizes
    return -(-C // _ext.COLUMNS) if S == 1 else C


def group_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y, mean, 1 / sqrt(variance + eps)), the last two (N, G) and float64."""
    y, sizes = _memory.empty(x.shape, x.dtype), _sizes(x, groups)
    mean, scale = np.empty((len(x), groups)), np.empty((len(x), groups))
    gamma, beta = (_of_channels(array, x.dtype, sizes) for array in (gamma, beta))
    _threads.share(
        _ext.group_forward,
        (_arrays.DTYPES[x.dtype], x, y, gamma, beta, mean, scale, sizes, eps, _isa.current),
        items=len(x) * groups,
        work=_SLOWNESS * x.nbytes,
        threads=_threads.get_threads(),
    )
    return y, mean, scale


def group_backward(
    dout: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dgamma, dbeta)."""
    N, C, S, G = sizes = _sizes(x, mean.shape[1])
    dx, dtype = _memory.empty(x.shape, x.dtype), _arrays.DTYPES[x.dtype]
    rows = S == 1
    sums = np.empty((C, 2) if rows else (N, C, 2))
    _threads.share(
        _ext.group_backward,
        (dtype, dout, x, dx, _of_channels(gamma, x.dtype, sizes), mean, scale, sums, sizes, _isa.current),
        items=N * G,
        work=2 * _SLOWNESS * x.nbytes,
        threads=_threads.get_threads(),
    )
    if rows:
        _threads.share(
            _ext.group_sums,
            (dtype, dout, x, mean, scale, sums, sizes, _isa.current),
            items=G * -(-(C // G) // _ext.COLUMNS),
            work=_SLOWNESS * x.nbytes,
            threads=_threads.get_threads(),
        )
    else:
        sums = sums.sum(axis=0)
    return dx, sums[:, 1], sums[:, 0]


def _of_channels(array: np.ndarray, dtype: np.dtype, sizes: tuple[int, int, int, int]) -> np.ndarray:
    """gamma or beta for the group kernels: of the dtype of x if channels have a single cell, else float64."""
    return _arrays.prepare(array, dtype if sizes[2] == 1 else np.dtype(np.float64))


def lrn(
    x: np.ndarray, dout: np.ndarray | None, window: tuple[int, int], constants: tuple[float, float, float]
) -> np.ndarray:
    """The result, or its gradient if there is dout; `constants` are (alpha / size, beta, k)."""
    N, C, S, _ = _sizes(x)
    lo, hi = (min(n, C - 1) for n in window)  # no more channels than there are
    rows = lo + hi + 3 + (0 if dout is None else C)
    width = min(S, max(_NARROWEST, min(_WIDEST, _SPACE_BYTES // (rows * x.itemsize) // _NARROWEST * _NARROWEST)))
    items, threads = N * -(-S // width), _threads.get_threads()
    to = _memory.empty(x.shape, x.dtype)
    arrays = (x, to) if dout is None else (dout, x, to)
    shape = (_threads.most(threads, items), rows * width)
    with _workspace.workspace("rows of channels", shape, x.dtype) as space:
        _threads.share(
            _lrn.forward if dout is None else _lrn.backward,
            (_arrays.DTYPES[x.dtype], *arrays, (N, C, S), (lo, hi), constants, width, space, _isa.current),
            items=items,
            work=_LRN_SLOWNESS * (x.nbytes if dout is None else 2 * x.nbytes),
            threads=threads,
        )
    return to
