"""An independent oracle: explicit loops over output positions, and padding by `numpy.pad` of cell numbers.

It uses nothing of fastconv, so that it cannot share fastconv's mistakes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded_cells(spatial, pads, pad_mode):
    """For each cell of the padded image, the number of the input cell that it shows; -1 for a zero."""
    cells = np.arange(int(np.prod(spatial))).reshape(spatial)
    if pad_mode == "zeros":
        return np.pad(cells, pads, constant_values=-1)
    return np.pad(cells, pads, mode=NUMPY_MODES[pad_mode])


def windows(spatial, kernel, stride, pads, dilation, pad_mode="zeros"):
    """(L, taps): the number of the input cell that each output position reads at each tap; -1 for a zero."""
    cells = padded_cells(spatial, pads, pad_mode)
    out = [
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(cells.shape, kernel, stride, dilation, strict=True)
    ]
    table = []
    for position in itertools.product(*map(range, out)):
        begins = [o * s for o, s in zip(position, stride, strict=True)]
        steps = zip(begins, kernel, dilation, strict=True)
        table.append(cells[tuple(slice(begin, begin + d * (k - 1) + 1, d) for begin, k, d in steps)].ravel())
    return np.array(table).reshape(-1, int(np.prod(kernel))), tuple(out)


def im2col(x, table):
    """The lowered matrix (N, C * taps, L) of x (N, C, *spatial)."""
    cells = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    flat = np.concatenate([cells, np.zeros((*x.shape[:2], 1), x.dtype)], axis=2)
    return flat[:, :, table.T].reshape(len(x), x.shape[1] * table.shape[1], table.shape[0])


def col2im(cols, table, shape):
    """The adjoint of `im2col`."""
    count = int(np.prod(shape[2:]))
    flat = np.zeros((shape[0], shape[1], count + 1))
    np.add.at(flat, (slice(None), slice(None), table.T), cols.reshape(*shape[:2], table.shape[1], table.shape[0]))
    return flat[:, :, :count].reshape(shape)


def conv(x, w, b, table, out, groups=1, flip=False):
    """The output, in float64."""
    if flip:
        w = np.flip(w, tuple(range(2, w.ndim)))
    N = len(x)
    F, L = len(w), table.shape[0]
    cols = im2col(x.astype(np.float64), table).reshape(N, groups, x.shape[1] // groups * table.shape[1], L)
    result = np.einsum("ngkl,gfk->ngfl", cols, w.astype(np.float64).reshape(groups, F // groups, -1))
    result = result.reshape(N, F, *out)
    return result if b is None else result + b.astype(np.float64).reshape(-1, *(1,) * len(out))


def conv_gradients(x, w, dout, table, groups=1, flip=False):
    """The gradients dx, dw and db in float64."""
    spatial = tuple(range(2, w.ndim))
    turned = np.flip(w, spatial) if flip else w
    N, F, L = len(x), len(w), table.shape[0]
    d = dout.astype(np.float64).reshape(N, groups, F // groups, L)
    cols = im2col(x.astype(np.float64), table).reshape(N, groups, x.shape[1] // groups * table.shape[1], L)
    dw = np.einsum("ngfl,ngkl->gfk", d, cols).reshape(w.shape)
    dcols = np.einsum("ngfl,gfk->ngkl", d, turned.astype(np.float64).reshape(groups, F // groups, -1))
    dx = col2im(dcols.reshape(N, x.shape[1] * table.shape[1], L), table, x.shape)
    return dx, np.flip(dw, spatial) if flip else dw, dout.astype(np.float64).sum(axis=(0, *spatial))


def pool(x, table, out, kind, count=None):
    """The maximum of each window with its flat index, or the mean over `count` cells."""
    flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    result, indices = np.zeros((*x.shape[:2], len(table)), x.dtype), np.zeros((*x.shape[:2], len(table)), np.int64)
    for i, window in enumerate(table):
        cells = window[window >= 0]
        values = flat[:, :, cells]
        if kind == "max":
            best = np.argmax(values, axis=-1)
            result[:, :, i], indices[:, :, i] = np.take_along_axis(values, best[..., None], -1)[..., 0], cells[best]
        else:
            result[:, :, i] = values.sum(axis=-1, dtype=np.float64) / (len(cells) if count is None else count[i])
    return result.reshape(*x.shape[:2], *out), indices.reshape(*x.shape[:2], *out)
