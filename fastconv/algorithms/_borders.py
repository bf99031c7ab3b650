"""Padding other than zeros for algorithms that support zeros only: images are padded first, and gradients folded
back.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastconv import _arrays, _memory, _padding
from fastconv.algorithms.base import Algorithm, Op
from fastconv.geometry import ConvGeometry

#: Bytes of padded copies of images at a time.
_EXTENDED_BYTES = 1 << 23


def reading_borders(algorithm: Algorithm, op: Op, geometry: ConvGeometry) -> Algorithm:
    """`algorithm` itself if it supports this border, or a wrapper that pads the images first."""
    if geometry.pad_mode == "zeros" or algorithm.reads_borders(op, geometry):
        return algorithm
    return Extended(algorithm)


def _chunks(geometry: ConvGeometry, dtype: np.dtype) -> list[slice]:
    """Slices of the batch whose padded copies fit the workspace."""
    count = geometry.x_shape[0]
    each = _arrays.check_bytes("the padded image", (1, *geometry.padded.x_shape[1:]), dtype)
    step = max(1, _EXTENDED_BYTES // max(each, 1))
    return [slice(n, min(n + step, count)) for n in range(0, count, step)]


def _part(geometry: ConvGeometry, chunk: slice) -> ConvGeometry:
    """That of extended copies."""
    return geometry.for_batch(chunk.stop - chunk.start).padded


class Extended(Algorithm):
    """An algorithm for a border other than zeros: some images at a time are padded first."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.name, self.own_threads, self.sums_products = algorithm.name, algorithm.own_threads, algorithm.sums_products
        self.needs_blas, self.skips_zeros = algorithm.needs_blas, algorithm.skips_zeros
        self.algorithm = algorithm

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """All of them."""
        return True

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """As the algorithm."""
        return self.algorithm.unsupported(op, geometry, dtype)

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """That of the algorithm, and the padded copies."""
        return self.algorithm.workspace_bytes(op, geometry, dtype, threads)

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """As the algorithm."""
        return self.algorithm.work(op, geometry, dtype, threads)

    def _extended(self, x: np.ndarray, geometry: ConvGeometry, threads: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the batch and their padded copies, or the images themselves without padding."""
        if geometry.padded.x_shape == geometry.x_shape:
            yield slice(0, len(x)), x
            return
        for chunk in _chunks(geometry, x.dtype):
            yield chunk, _padding.extend(x[chunk], geometry, threads)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Of the extended images."""
        for chunk, part in self._extended(x, geometry, threads):
            self.algorithm.forward(part, w, b, _part(geometry, chunk), out[chunk], threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """The gradient of the padded images; that of each cell of a border is added to the cell of which it is a
        copy.
        """
        if geometry.padded.x_shape == geometry.x_shape:
            self.algorithm.backward_data(dout, w, geometry.padded, dx, threads)
            return
        for chunk in _chunks(geometry, dx.dtype):
            part = _part(geometry, chunk)
            dpadded = _memory.empty(part.x_shape, dx.dtype)
            self.algorithm.backward_data(dout[chunk], w, part, dpadded, threads)
            _padding.fold(dpadded, geometry, dx[chunk], threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """The sum over the slices of the batch."""
        self._sum_weights(None, x, dout, geometry, dw, threads)

    def backward_kept_weights(
        self, x: np.ndarray, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """The same where `w` is not zero."""
        self._sum_weights(w, x, dout, geometry, dw, threads)

    def _sum_weights(
        self,
        w: np.ndarray | None,
        x: np.ndarray,
        dout: np.ndarray,
        geometry: ConvGeometry,
        dw: np.ndarray,
        threads: int,
    ) -> None:
        for chunk, part in self._extended(x, geometry, threads):
            target = np.empty_like(dw) if chunk.start else dw
            if w is None:
                self.algorithm.backward_weights(part, dout[chunk], _part(geometry, chunk), target, threads)
            else:
                self.algorithm.backward_kept_weights(part, dout[chunk], w, _part(geometry, chunk), target, threads)
            if chunk.start:
                with np.errstate(all="ignore"):  # inf - inf is NaN by definition
                    dw += target
