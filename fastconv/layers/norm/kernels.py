"""The plans of normalisations, which call the compiled kernels without further checks of the arguments."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastconv._ext.norm import lrn as _lrn, norm as _ext
from fastconv.checks import arrays as _arrays
from fastconv.layers.calls import Call, Calls
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

_Plan = TypeVar("_Plan", bound="NormPlan")
_FLOAT64 = np.dtype(np.float64)

#: The time of a normalisation, as a multiple of the time to copy x.
_SLOWNESS = 1
#: The time of local response normalisation, as a multiple of the time to copy x. Most of the time is for the powers.
_LRN_SLOWNESS = 4
#: The number of bytes that a thread processes at a time in local response normalisation. This many bytes fit into the
#: L2 cache.
_SPACE_BYTES = 1 << 18
#: Local response normalisation processes at most `_WIDEST` positions of an image at a time. The number is a multiple of
#: `_NARROWEST`, unless the image has fewer positions.
_WIDEST, _NARROWEST = 1024, 64


class NormSizes(NamedTuple):
    """The sizes of x for the kernels: N images, C channels, S cells in each channel, and G groups of channels."""

    N: int
    C: int
    S: int
    G: int = 1

    @classmethod
    def of(cls, shape: tuple[int, ...], groups: int = 1) -> NormSizes:
        """Return the sizes of x (N, C, *spatial)."""
        return cls(shape[0], shape[1], math.prod(shape[2:]), groups)


def has_negative(moments: np.ndarray) -> bool:
    """Return whether a contiguous float64 array has a number below 0."""
    return _ext.has_negative(moments)


@dataclass(frozen=True)
class NormPlan:
    """A normalisation or its gradient for one shape, dtype, number of threads and instruction set, ready to run.

    All arrays are C-contiguous and not empty. Their dtype is `dtype`, unless a method says that it is float64.
    """

    sizes: NormSizes
    dtype: np.dtype
    threads: int
    isa: int
    passes = _SLOWNESS

    @cached_property
    def dtype_index(self) -> int:
        """The index of the dtype for the kernels: 0 for float32, 1 for float64."""
        return _arrays.DTYPES[self.dtype]

    @cached_property
    def x_bytes(self) -> int:
        """The number of bytes of x."""
        return math.prod(self.sizes[:3]) * self.dtype.itemsize

    @cached_property
    def items(self) -> int:
        """The number of work items, which are distributed over the threads."""
        raise NotImplementedError

    @cached_property
    def sharing(self) -> dict[str, int]:
        """Keyword arguments for `_threads.share`. `work` is the plan's time, in bytes that a copy would move."""
        return {"items": self.items, "work": self.passes * self.x_bytes, "threads": self.threads}


class BatchNormPlan(NormPlan):
    """The base class of the plans of batch normalisation."""

    def __str__(self) -> str:
        return "columns" if self.sizes.S == 1 else "channels"

    @cached_property
    def items(self) -> int:
        """The number of work items: channels, or blocks of channels if each channel has a single cell."""
        return -(-self.sizes.C // _ext.COLUMNS) if self.sizes.S == 1 else self.sizes.C


class BatchNormForward(BatchNormPlan):
    """The plan of the forward pass of batch normalisation."""

    def run(
        self,
        x: np.ndarray,
        y: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        moments: np.ndarray,
        eps: float,
        train: bool,
    ) -> None:
        """Write the normalised x to `y`.

        `moments` (3, C) has the mean, the variance and 1 / sqrt(variance + eps) of each channel. If `train` is true,
        all three are computed from x. Otherwise the mean and the variance are read, and only 1 / sqrt(variance + eps)
        is computed. `moments`, `gamma` and `beta` are float64.
        """
        mean, variance, scale = moments
        given = self.dtype_index, x, y, gamma, beta, mean, variance, scale, self.sizes, eps, train, self.isa
        _threads.share(_ext.batch_forward, given, **self.sharing)


class BatchNormBackward(BatchNormPlan):
    """The plan of the backward pass of batch normalisation."""

    passes = 2 * _SLOWNESS

    def run(
        self,
        dout: np.ndarray,
        x: np.ndarray,
        dx: np.ndarray,
        gamma: np.ndarray,
        mean: np.ndarray,
        scale: np.ndarray,
        train: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write dx, and return (dgamma, dbeta) in float64. `gamma`, `mean` and `scale` are float64, too."""
        sums = np.empty((self.sizes.C, 2))
        given = self.dtype_index, dout, x, dx, gamma, mean, scale, sums, self.sizes, train, self.isa
        _threads.share(_ext.batch_backward, given, **self.sharing)
        return sums[:, 1], sums[:, 0]


class GroupNormPlan(NormPlan):
    """The base class of the plans of layer and group normalisation."""

    def __str__(self) -> str:
        return "rows" if self.sizes.S == 1 else "groups"

    @cached_property
    def items(self) -> int:
        """The number of work items, which are the groups of all images."""
        return self.sizes.N * self.sizes.G

    def of_channels(self, array: np.ndarray) -> np.ndarray:
        """Return gamma or beta in the dtype of x if each channel has a single cell, otherwise in float64."""
        return _arrays.prepare(array, self.dtype if self.sizes.S == 1 else _FLOAT64)


class GroupNormForward(GroupNormPlan):
    """The plan of the forward pass of layer or group normalisation."""

    def run(
        self, x: np.ndarray, y: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write y, and return the mean and 1 / sqrt(variance + eps) as float64 arrays (N, G)."""
        shape = self.sizes.N, self.sizes.G
        mean, scale = np.empty(shape), np.empty(shape)
        gamma, beta = self.of_channels(gamma), self.of_channels(beta)
        given = self.dtype_index, x, y, gamma, beta, mean, scale, self.sizes, eps, self.isa
        _threads.share(_ext.group_forward, given, **self.sharing)
        return mean, scale


class GroupNormBackward(GroupNormPlan):
    """The plan of the backward pass of layer or group normalisation."""

    passes = 2 * _SLOWNESS

    def run(
        self, dout: np.ndarray, x: np.ndarray, dx: np.ndarray, gamma: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write dx, and return (dgamma, dbeta) in float64."""
        N, C, S, G = sizes = self.sizes
        rows = S == 1
        sums = np.empty((C, 2) if rows else (N, C, 2))
        given = self.dtype_index, dout, x, dx, self.of_channels(gamma), mean, scale, sums, sizes, self.isa
        _threads.share(_ext.group_backward, given, **self.sharing)
        if rows:
            _threads.share(
                _ext.group_sums,
                (self.dtype_index, dout, x, mean, scale, sums, sizes, self.isa),
                items=G * -(-(C // G) // _ext.COLUMNS),
                work=_SLOWNESS * self.x_bytes,
                threads=self.threads,
            )
        else:
            sums = sums.sum(axis=0)
        return sums[:, 1], sums[:, 0]


@dataclass(frozen=True)
class LrnPlan:
    """Local response normalisation, or its gradient, for one shape, window and dtype, ready to run."""

    sizes: NormSizes
    lo: int
    hi: int
    dtype: np.dtype
    threads: int
    isa: int
    is_gradient: bool
    #: `width` is the number of positions of an image that the kernel processes at a time. `space` is the number of
    #: elements of workspace per thread.
    width: int
    space: int

    def __str__(self) -> str:
        return "neighbouring channels"

    def run(
        self, x: np.ndarray, dout: np.ndarray | None, to: np.ndarray, constants: tuple[float, float, float]
    ) -> None:
        """Write the output to `to`, or dx if `dout` is given. `constants` is (alpha / size, beta, k)."""
        N, C, S, _ = self.sizes
        arrays = (x, to) if dout is None else (dout, x, to)
        items = N * -(-S // self.width)
        shape = (_threads.most(self.threads, items), self.space)
        window = self.lo, self.hi
        with _workspace.workspace("rows of channels", shape, self.dtype) as space:
            _threads.share(
                _lrn.forward if dout is None else _lrn.backward,
                (_arrays.DTYPES[self.dtype], *arrays, (N, C, S), window, constants, self.width, space, self.isa),
                items=items,
                work=_LRN_SLOWNESS * (x.nbytes if dout is None else 2 * x.nbytes),
                threads=self.threads,
            )


def plan_norm(kind: type[_Plan], sizes: NormSizes, dtype: np.dtype) -> _Plan:
    """Return the plan of a normalisation for the default number of threads."""
    return plans.find(kind, sizes, dtype, _threads.get_threads(), _isa.current)


def norm_call(kind: type[NormPlan], sizes: NormSizes, dtype: np.dtype) -> Call[NormSizes]:
    """Return the call of a normalisation or of its gradient, with its plan."""

    def make_plan(sizes: NormSizes, dtype: np.dtype, option: None, threads: int) -> Any:
        return plan_norm(kind, sizes, dtype)

    return Call(sizes, None, None, make_plan, dtype)


def gradient_calls(kind: type[NormPlan]) -> Calls[Call[NormSizes]]:
    """Return the table of the calls of a gradient. A call has one array, the x in the cache of the forward pass."""

    def resolve(dtype: np.dtype, x: np.ndarray, groups: int) -> Call[NormSizes]:
        return norm_call(kind, NormSizes.of(x.shape, groups), dtype)

    return Calls(("x",), resolve)


def plan_lrn(sizes: NormSizes, size: int, dtype: np.dtype, is_gradient: bool) -> LrnPlan:
    """Return the plan of local response normalisation over `size` channels, for the default number of threads."""
    return plans.find(_make_lrn, sizes, size, dtype, _threads.get_threads(), _isa.current, is_gradient)


def _make_lrn(sizes: NormSizes, size: int, dtype: np.dtype, threads: int, isa: int, is_gradient: bool) -> LrnPlan:
    # A window of even size has one channel more after the normalised channel than before it.
    lo, hi = min((size - 1) // 2, sizes.C - 1), min(size // 2, sizes.C - 1)
    rows = lo + hi + 3 + (sizes.C if is_gradient else 0)
    most = _SPACE_BYTES // (rows * dtype.itemsize) // _NARROWEST * _NARROWEST
    width = min(sizes.S, max(_NARROWEST, min(_WIDEST, most)))
    return LrnPlan(sizes, lo, hi, dtype, threads, isa, is_gradient, width, rows * width)
