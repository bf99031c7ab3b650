"""The convolution as the sparse matrix it is: CSR arrays times many right-hand sides."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fastconv.convolution.base import MethodAlgorithm
from fastconv.convolution.cost.model import share
from fastconv.convolution.ops import Op
from fastconv.convolution.toeplitz import bounds as _bounds, csr as _csr
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import memory as _memory

#: Rows of the matrix that are made at a time, in bytes: they stay in cache while they are multiplied.
_BLOCK_BYTES = 1 << 22
#: Images side by side are the right-hand sides: up to so many, and so many bytes of them and of their results.
_IMAGES, _IMAGE_BYTES = 128, 1 << 24
#: The rows of one filter, of which there may be no fewer at a time, take no more.
_MOST_BYTES = 1 << 30


class Toeplitz(MethodAlgorithm):
    """With A the matrix that `toeplitz_matrix` gives, of one image, and images as columns of X:

    - forward:          Y = A @ X
    - backward_data:    dX = A.T @ dY, its transpose being made row by row as A is
    - backward_weights: dw[f, c, tap] = the sums of dY[row] * X[column] over the entries that hold that weight

    Only some filters' rows (for backward_data some channels') are there at a
    time. Zero weights have no entries, and take no part; but for them, NaN and
    infinity go where the sum of products sends them.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, section 4.1.
    """

    name = "toeplitz"
    skips_zeros = True

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Where the rows of one filter, or of one channel, are too many to be made at a time."""
        geometry = _zero_padded(geometry)
        if op == "backward_weights":
            return None
        rows, columns, nnz = _of_one(op, geometry)
        reason = _csr.why_not((rows, columns), nnz, dtype)
        size = _csr.nbytes((rows, columns), nnz, dtype)
        if reason is None and size > _MOST_BYTES:
            part = "filter" if op == "forward" else "channel"
            reason = f"the rows of one {part} in the Toeplitz matrix take {size} bytes, and at most are {_MOST_BYTES}"
        return reason

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Images and results side by side, the rows that are made of the matrix, and the tables they are made from."""
        geometry = _zero_padded(geometry)
        width = _csr.lanes(_images(geometry, dtype), dtype.itemsize)[1]
        cells, outputs = (math.prod(shape[1:]) for shape in (geometry.x_shape, geometry.out_shape))
        needs = _bounds.needs(geometry, "cells" if op == "backward_data" else "outputs")
        weights = math.prod(geometry.w_shape)
        if op == "backward_weights":
            beside = weights if _images(geometry, dtype) < geometry.x_shape[0] else 0
            used = (cells + outputs) * width + beside
            used = used * dtype.itemsize + _csr.contract_bytes(geometry, threads)
        else:
            rows, columns, nnz = _of_one(op, geometry)
            count = _rows_a_block(op, geometry, dtype)
            source = cells if op == "forward" else outputs
            of_row = math.prod(
                geometry.w_shape[1:] if op == "forward" else (geometry.w_shape[0] // geometry.groups, geometry.taps)
            )
            matrix = (count * rows, columns), count * nnz
            used = ((source + count * rows) * width + weights) * dtype.itemsize
            used += _csr.build_bytes(count, *matrix, of_row, needs.segments, dtype, threads)
        return max(needs.making, needs.held + used)

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Vectors of products, entries made anew for each block of images, and elements turned."""
        geometry = _zero_padded(geometry)
        images, count = geometry.x_shape[0], _images(geometry, dtype)
        chunks = -(-images // count)
        width = _csr.lanes(count, dtype.itemsize)[1] * dtype.itemsize / 64
        part = share(8 * threads, threads)
        return {
            "product": geometry.toeplitz_nnz * width * chunks * part,
            "entries": geometry.toeplitz_nnz * chunks * part,
            "turned": math.prod(geometry.x_shape) + math.prod(geometry.out_shape),
            "call": 1,
        }

    def pruned_work(
        self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
    ) -> dict[str, float]:
        """Zero weights have no entries, but in the gradient of all weights."""
        work = self.work(op, geometry, dtype, threads)
        left = 1.0 if op == "backward_weights" else density
        return {**work, "product": left * work["product"], "entries": left * work["entries"]}

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Y = A @ X + b; padding has columns only where NaN or infinity among the weights would show in it."""
        self._check_free("forward", geometry, out.dtype, threads)
        if any(map(any, geometry.pads)) and not np.isfinite(w).all():
            x, geometry = np.pad(x, ((0, 0), (0, 0), *geometry.pads)), geometry.padded
        _multiply("forward", x, w, b, geometry, out, threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """dX = A.T @ dY"""
        self._check_free("backward_data", geometry, dx.dtype, threads)
        _multiply("backward_data", dout, w, None, geometry, dx, threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """The pattern is that of weights without zeros: their gradients are all there."""
        self._check_free("backward_weights", geometry, dw.dtype, threads)
        structure = _csr.of_outputs(geometry, False)
        for chunk in _chunks(geometry, dw.dtype):
            isa, width = _csr.lanes(chunk.stop - chunk.start, dw.itemsize)
            target = np.empty_like(dw) if chunk.start else dw
            _csr.contract(structure, _turned(x[chunk], width), _turned(dout[chunk], width), target, isa, threads)
            if chunk.start:
                dw += target

    def _check_free(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> None:
        """Refuse what is not free before any of it is taken: tables may take more than the matrix."""
        nbytes = self.workspace_bytes(op, geometry, dtype, threads)
        _memory.check_free(nbytes, "algorithm 'toeplitz'", _memory.BOUNDED)


def _zero_padded(geometry: ConvGeometry) -> ConvGeometry:
    """As it reaches an algorithm: padding that is not zeros is part of the image."""
    return geometry if geometry.pad_mode == "zeros" else geometry.padded


def _of_one(op: Op, geometry: ConvGeometry) -> tuple[int, int, int]:
    """Rows, columns and entries of one filter's part of the matrix, or of one channel's of its transpose."""
    filters, channels = geometry.w_shape[0], geometry.x_shape[1]
    cells = math.prod(geometry.x_shape[2:])
    if op == "forward":
        return geometry.positions, channels // geometry.groups * cells, geometry.toeplitz_nnz // filters
    return cells, filters // geometry.groups * geometry.positions, geometry.toeplitz_nnz // channels


def _rows_a_block(op: Op, geometry: ConvGeometry, dtype: np.dtype) -> int:
    """Filters, or channels, whose rows are made at a time: all there are, or some of one group."""
    whole = geometry.w_shape[0] if op == "forward" else geometry.x_shape[1]
    rows, columns, nnz = _of_one(op, geometry)
    fit = _BLOCK_BYTES // max(_csr.nbytes((rows, columns), nnz, dtype), 1)
    return whole if whole <= fit else max(1, min(fit, whole // geometry.groups))


def _images(geometry: ConvGeometry, dtype: np.dtype) -> int:
    """Of a block of right-hand sides."""
    each = (math.prod(geometry.x_shape[1:]) + math.prod(geometry.out_shape[1:])) * dtype.itemsize
    return max(1, min(geometry.x_shape[0], _IMAGES, _IMAGE_BYTES // max(each, 1)))


def _chunks(geometry: ConvGeometry, dtype: np.dtype) -> Iterator[slice]:
    images, count = geometry.x_shape[0], _images(geometry, dtype)
    return (slice(n, min(n + count, images)) for n in range(0, images, count))


def _turned(images: np.ndarray, width: int) -> np.ndarray:
    """Images as columns, (cells, width): whole vectors, the last lanes zero."""
    count = len(images)
    columns = np.empty((images[0].size, width), images.dtype)
    columns[:, :count] = images.reshape(count, -1).T
    columns[:, count:] = 0
    return columns


def _multiply(
    op: Op,
    source: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    geometry: ConvGeometry,
    result: np.ndarray,
    threads: int,
) -> None:
    """The matrix, or its transpose, times all images, some rows and some images at a time."""
    structure = (_csr.of_outputs if op == "forward" else _csr.of_cells)(geometry, False)
    total, block = structure.weight_rows, _rows_a_block(op, geometry, w.dtype)
    positions, columns = structure.shape[0] // total, structure.shape[1] // geometry.groups
    _, rows, _, group_step, row_step = (int(size) for size in structure.sizes[:5])
    # A copy, because weights are counted before they are written: nobody may change them in between.
    weights, targets = w.flatten(), result.reshape(len(result), -1, positions)
    whole = _csr.build(weights, structure, threads) if block == total else None
    for chunk in _chunks(geometry, w.dtype):
        count = chunk.stop - chunk.start
        isa, width = _csr.lanes(count, w.itemsize)
        images = _turned(source[chunk], width)
        begin = 0
        while begin < total:
            matrix, here = whole, images
            if matrix is None:
                group, row = begin // rows, begin % rows
                part = structure.block(min(block, rows - row))
                matrix = _csr.build(weights[group * group_step + row * row_step :], part, threads)
                here = images[group * columns : (group + 1) * columns]
            products = np.empty((matrix.shape[0], width), w.dtype)
            _csr.multiply(matrix, here, products, isa, threads)
            of_rows = products.reshape(-1, positions, width)
            end = begin + len(of_rows)
            if b is not None:
                of_rows += b[begin:end, np.newaxis, np.newaxis]
            targets[chunk, begin:end] = of_rows[:, :, :count].transpose(2, 0, 1)
            begin = end
