"""Convolution and pooling in plain NumPy, which the demo compares with fastconv. The functions loop over the elements
of the kernel, the taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.demo.net import Ops


def _slice(array: np.ndarray, i: int, j: int, out: tuple[int, int], stride: int) -> np.ndarray:
    """Return a view of the input cells that the outputs read at tap (i, j) of the kernel."""
    return array[:, :, i : i + (out[0] - 1) * stride + 1 : stride, j : j + (out[1] - 1) * stride + 1 : stride]


def conv_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray, conv_param: dict[str, int]) -> tuple[np.ndarray, Any]:
    """Convolve. Each tap (i, j) adds to out the product of w[:, :, i, j] and a strided slice of x."""
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = ((padded.shape[a] - w.shape[a]) // stride + 1 for a in (2, 3))
    out = np.zeros((len(w), len(x), rows, columns), x.dtype)
    for i, j in np.ndindex(*w.shape[2:]):
        # [F x C] @ [C x (N, OH, OW)]
        out += np.tensordot(w[:, :, i, j], _slice(padded, i, j, (rows, columns), stride), axes=(1, 1))
    return out.transpose(1, 0, 2, 3) + b[:, None, None], (x.shape, padded, w, stride, pad)


def conv_backward(dout: np.ndarray, cache: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dw, db). Each tap (i, j) adds w[:, :, i, j].T @ dout to a strided slice of dx."""
    x_shape, padded, w, stride, pad = cache
    dpadded, dw = np.zeros_like(padded), np.empty_like(w)
    for i, j in np.ndindex(*w.shape[2:]):
        cells = _slice(padded, i, j, dout.shape[2:], stride)
        # dw: [F x (N, OH, OW)] @ [(N, OH, OW) x C]; dx: [C x F] @ [F x (N, OH, OW)]
        dw[:, :, i, j] = np.tensordot(dout, cells, axes=((0, 2, 3), (0, 2, 3)))
        part = np.tensordot(w[:, :, i, j], dout, axes=(0, 1)).transpose(1, 0, 2, 3)
        _slice(dpadded, i, j, dout.shape[2:], stride)[...] += part
    dx = dpadded[:, :, pad : pad + x_shape[2], pad : pad + x_shape[3]]
    return dx, dw, dout.sum(axis=(0, 2, 3))


def pool_forward(x: np.ndarray, pool_param: dict[str, int]) -> tuple[np.ndarray, Any]:
    """Compute the maximum of every window, in a loop over the positions in a window."""
    height, width, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    size = ((x.shape[2] - height) // stride + 1, (x.shape[3] - width) // stride + 1)
    out = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
    for i, j in np.ndindex(height, width):
        np.maximum(out, _slice(x, i, j, size, stride), out=out)
    return out, (x, out, (height, width), stride)


def pool_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """Return the gradient of `pool_forward`. The first maximum of a window gets the gradient."""
    x, out, window, stride = cache
    dx, open_ = np.zeros_like(x), np.ones(out.shape, bool)
    for i, j in np.ndindex(*window):
        hit = open_ & (_slice(x, i, j, out.shape[2:], stride) == out)
        _slice(dx, i, j, out.shape[2:], stride)[...] += np.where(hit, dout, 0)
        open_ &= ~hit
    return dx


PLAIN = Ops(conv_forward, conv_backward, pool_forward, pool_backward)
