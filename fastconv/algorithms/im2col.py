"""The textbook path: lower one image, multiply, and col2im for the gradient of the image."""

from __future__ import annotations

import math

import numpy as np

from fastconv import _arrays
from fastconv.algorithms.base import BYTES, MULTIPLY_ADDS, Algorithm, Op, multiply_adds
from fastconv.geometry import ConvGeometry
from fastconv.lowering import lower, scatter


class Im2col(Algorithm):
    """Three matrix products by BLAS, on the columns of one image at a time, never of N.

    With G groups, ``f = F / G`` filters and ``K = C / G * taps`` rows a group:

    - forward:          out[n] = w @ cols       [f x K] @ [K x L]
    - backward_data:    dcols = w.T @ dout[n]   [K x f] @ [f x L]
    - backward_weights: dw += dout[n] @ cols.T  [f x L] @ [L x K]

    Chellapilla, Puri, Simard, "High performance convolutional neural networks
    for document processing", 2006.
    """

    name = "im2col"

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """One image's columns, and for weights one image's gradient."""
        cols = 0 if geometry.pointwise else math.prod(geometry.cols_shape[1:])
        return (cols + (math.prod(geometry.w_shape) if op == "backward_weights" else 0)) * dtype.itemsize

    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """The product, and twice the columns through memory."""
        product = multiply_adds(geometry) / (MULTIPLY_ADDS * 4 / dtype.itemsize)
        moved = 0 if geometry.pointwise else 2 * geometry.im2col_bytes(dtype)
        return product + moved / BYTES + 1e-6 * geometry.x_shape[0]

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias is added while the image's output is still in cache."""
        one, weights = _Image(geometry, x.dtype, threads), _matrix(w, geometry)
        bias = None if b is None else b.reshape(geometry.groups, -1, 1)
        for n in range(len(x)):
            product = out[n].reshape(geometry.groups, -1, geometry.positions)
            # [f x K] @ [K x L], one product per group
            np.matmul(weights, one.columns(x[n : n + 1]), out=product)
            if bias is not None:
                product += bias

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """The transposed weights give the gradient of the columns; col2im sums it up."""
        one, weights = _Image(geometry, dx.dtype, threads), _matrix(w, geometry).transpose(0, 2, 1)
        for n in range(len(dx)):
            # [K x f] @ [f x L], one product per group
            np.matmul(weights, _matrix(dout[n], geometry), out=one.buffer(dx[n : n + 1]))
            one.scatter(dx[n : n + 1])

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Images are summed one after the other, so that the result does not depend on threads."""
        one, total = _Image(geometry, x.dtype, threads), _matrix(dw, geometry)
        part = np.empty_like(total)
        for n in range(len(x)):
            columns = one.columns(x[n : n + 1]).transpose(0, 2, 1)
            # [f x L] @ [L x K], one product per group
            np.matmul(dout[n].reshape(geometry.groups, -1, geometry.positions), columns, out=part if n else total)
            if n:
                total += part


def _matrix(array: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Weights (F, ...) as (G, f, K), or one image's gradient (F, *out_spatial) as (G, f, L)."""
    return array.reshape(geometry.groups, array.shape[0] // geometry.groups, -1)


class _Image:
    """The columns of one image, (G, K, L): a workspace, or the image itself where lowering says nothing new."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> None:
        self.geometry = geometry.for_batch(1)
        self.threads = threads
        shape = (1, *geometry.cols_shape[1:])
        self.cols = None if geometry.pointwise else _arrays.output(None, shape, dtype, "one image's columns")

    def _by_group(self, cols: np.ndarray) -> np.ndarray:
        return cols.reshape(self.geometry.groups, -1, self.geometry.positions)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """The columns of image x (1, C, *spatial)."""
        if self.cols is None:
            return self._by_group(x)
        lower(x, self.cols, self.geometry, self.threads)
        return self._by_group(self.cols)

    def buffer(self, dx: np.ndarray) -> np.ndarray:
        """Where the gradient of the columns of dx (1, C, *spatial) goes."""
        return self._by_group(dx if self.cols is None else self.cols)

    def scatter(self, dx: np.ndarray) -> None:
        """dx from what was written to `buffer`."""
        if self.cols is not None:
            scatter(self.cols, dx, self.geometry, self.threads)
