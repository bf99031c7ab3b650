"""The plans of `toeplitz`: products with the matrix or its transpose, and dw as sums over the entries of the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np

from fastconv.convolution.cost.model import share
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.convolution.toeplitz import bounds as _bounds, csr as _csr
from fastconv.convolution.wrappers import batched
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import memory as _memory
from fastconv.runtime.plan_cache import is_large

#: The approximate number of bytes of the matrix rows that are built together. These rows stay in cache while they are
#: multiplied.
_BLOCK_BYTES = 1 << 22
#: The limits for the right-hand sides of one product: the largest number of images, and the largest number of bytes of
#: these images and their results.
_IMAGES, _IMAGE_BYTES = 128, 1 << 24


def zero_padded(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the convolution that the matrix computes.

    If the padding is not zeros, the image is padded first, and the matrix computes a convolution without padding.
    """
    return geometry if geometry.pad_mode == "zeros" else geometry.padded


def part_of_matrix(op: Op, geometry: ConvGeometry) -> tuple[int, int, int]:
    """Return the numbers of rows, columns and entries of the matrix for a single filter.

    For backward_data, return these numbers of the transposed matrix for a single channel.
    """
    filters, channels = geometry.w_shape[0], geometry.x_shape[1]
    cells = math.prod(geometry.x_shape[2:])
    if op == "forward":
        return geometry.positions, channels // geometry.groups * cells, geometry.toeplitz_nnz // filters
    return cells, filters // geometry.groups * geometry.positions, geometry.toeplitz_nnz // channels


def _images_at_once(geometry: ConvGeometry, dtype: np.dtype) -> int:
    each = (math.prod(geometry.x_shape[1:]) + math.prod(geometry.out_shape[1:])) * dtype.itemsize
    return max(1, min(geometry.x_shape[0], _IMAGES, _IMAGE_BYTES // max(each, 1)))


def _work_of(case: Case, images: int, density: float) -> dict[str, float]:
    """Return the amounts of work of an op that processes `images` images at a time.

    `product` is the number of vector multiply-adds. `entries` is the number of entries that are built for all blocks of
    images. `transposed` is the number of elements that are transposed between images and matrix columns.
    """
    geometry = zero_padded(case.geometry)
    blocks = -(-geometry.x_shape[0] // images)
    width = _csr.lanes(images, case.dtype.itemsize)[1] * case.dtype.itemsize / 64
    part = share(8 * case.threads, case.threads)
    return {
        "product": density * (geometry.toeplitz_nnz * width * blocks * part),
        "entries": density * (geometry.toeplitz_nnz * blocks * part),
        "transposed": math.prod(geometry.x_shape) + math.prod(geometry.out_shape),
        "call": 1,
    }


def _check_free(plan: Plan) -> None:
    """Raise an error if a plan needs more memory than is free.

    Call this function before the tables of the plan are made, because these tables may also be large.
    """
    _memory.check_free(plan.workspace_bytes, "algorithm 'toeplitz'", _memory.BOUNDED)


class _Pattern:
    """A callable that returns the sparsity pattern of a matrix.

    The first run makes the pattern, because most plans are only compared by cost and never run. A large pattern is not
    stored, so each run makes it again.
    """

    def __init__(self, make: Callable[[ConvGeometry, bool], _csr.SparsityPattern], geometry: ConvGeometry) -> None:
        self._make, self._geometry = make, geometry
        self._make_pattern: _csr.SparsityPattern | None = None

    def __call__(self) -> _csr.SparsityPattern:
        found = self._make_pattern
        if found is None:
            found = self._make(self._geometry, False)
            if not is_large(found.table.nbytes):
                self._make_pattern = found
        return found


def _columns(images: np.ndarray, width: int) -> np.ndarray:
    """Return an array (cells, width) whose columns are the images. Columns after the last image are zero."""
    count = len(images)
    columns = np.empty((images[0].size, width), images.dtype)
    columns[:, :count] = images.reshape(count, -1).T
    columns[:, count:] = 0
    return columns


class MatrixPlan(Plan):
    """Multiplies the matrix by images or, for dx, its transpose by dout. Each step takes some rows and some images."""

    algorithm = "toeplitz"
    exploits_sparsity = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.geometry = geometry = zero_padded(case.geometry)
        self.images = _images_at_once(geometry, case.dtype)
        self.rows, self.columns, self.entries = part_of_matrix(case.op, geometry)
        #: `total` is the number of filters or, for the transpose, of channels. The matrix rows of `block` filters (or
        #: channels) are built together. If `block` is less than `total`, these filters (or channels) are in one group.
        self.total = geometry.w_shape[0] if case.op == "forward" else geometry.x_shape[1]
        fit = _BLOCK_BYTES // max(_csr.nbytes((self.rows, self.columns), self.entries, case.dtype), 1)
        self.block = self.total if self.total <= fit else max(1, min(fit, self.total // geometry.groups))
        self._pattern = _Pattern(_csr.of_outputs if case.op == "forward" else _csr.of_cells, geometry)
        self._has_padding = case.op == "forward" and any(map(any, geometry.pads))
        self._padded: MatrixPlan | None = None

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the pattern, of one block of matrix rows, and of arrays whose columns are images and results."""
        geometry, case, block = self.geometry, self.case, self.block
        forward = case.op == "forward"
        width = _csr.lanes(self.images, case.dtype.itemsize)[1]
        needs = _bounds.needs(geometry, "outputs" if forward else "cells")
        source = geometry.x_shape if forward else geometry.out_shape
        row = geometry.w_shape[1:] if forward else (geometry.w_shape[0] // geometry.groups, geometry.taps)
        used = (math.prod(source[1:]) + block * self.rows) * width + math.prod(geometry.w_shape)
        used *= case.dtype.itemsize
        matrix = (block * self.rows, self.columns), block * self.entries
        used += _csr.build_bytes(block, *matrix, math.prod(row), needs.segments, case.dtype, case.threads)
        return max(needs.making, needs.held + used)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work. Zero weights cost nothing, because the matrix has no entries for them."""
        return _work_of(self.case, self.images, self.case.density)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the result.

        If a weight is not finite, the image is padded first, because the products of this weight with zeros of the
        padding are NaN.
        """
        _check_free(self)
        if self._has_padding and not np.isfinite(second).all():
            padded = self._padded
            if padded is None:
                padded = self._padded = MatrixPlan(self.case.with_geometry(self.geometry.padded))
            image = np.pad(first, ((0, 0), (0, 0), *self.geometry.pads))
            padded._multiply(image, second, third, result)
        else:
            self._multiply(first, second, third, result)

    def _multiply(self, source: np.ndarray, w: np.ndarray, b: np.ndarray | None, result: np.ndarray) -> None:
        sparsity = self._pattern()
        # Copy the weights, because another thread may change them between the counting and the writing of entries.
        weights, targets = w.flatten(), result.reshape(len(result), -1, self.rows)
        whole = _csr.build(weights, sparsity, self.case.threads) if self.block == self.total else None
        for begin in range(0, len(source), self.images):
            chunk = slice(begin, min(begin + self.images, len(source)))
            isa, width = _csr.lanes(chunk.stop - chunk.start, w.itemsize)
            images = _columns(source[chunk], width)
            if whole is not None:
                self._multiply_rows(whole, images, isa, b, targets[chunk])
                continue
            for rows, cells, first_weight, part in self._blocks(sparsity):
                bias = None if b is None else b[rows]
                # The matrix is not assigned to a variable, so it is freed before the next one is built.
                self._multiply_rows(
                    *(_csr.build(weights[first_weight:], part, self.case.threads), images[cells], isa),
                    *(bias, targets[chunk, rows]),
                )

    def _multiply_rows(
        self, matrix: _csr.Csr, images: np.ndarray, isa: int, bias: np.ndarray | None, targets: np.ndarray
    ) -> None:
        """Multiply some rows of the matrix by images, add the bias, and write the results to `targets`.

        `targets` has shape (images, filters or channels, positions).
        """
        products = np.empty((matrix.shape[0], images.shape[1]), images.dtype)
        _csr.multiply(matrix, images, products, isa, self.case.threads)
        of_rows = products.reshape(-1, self.rows, images.shape[1])
        if bias is not None:
            of_rows += bias[:, np.newaxis, np.newaxis]
        targets[...] = of_rows[:, :, : len(targets)].transpose(2, 0, 1)

    def _blocks(self, sparsity: _csr.SparsityPattern) -> Iterator[tuple[slice, slice, int, _csr.SparsityPattern]]:
        """Yield four values for each block of matrix rows: the slice of its filters (or channels), the slice of the
        cells that the block reads, the index of its first weight, and its pattern.
        """
        of_group, group_step, row_step = (int(sparsity.sizes[i]) for i in (1, 3, 4))
        begin = 0
        while begin < self.total:
            group, row = divmod(begin, of_group)
            part = sparsity.block(min(self.block, of_group - row))
            rows = slice(begin, begin + part.weight_rows)
            cells = slice(group * self.columns, (group + 1) * self.columns)
            yield rows, cells, group * group_step + row * row_step, part
            begin = rows.stop


def plan_weights(case: Case) -> Plan:
    """Return the plan of the gradient of the weights, which is computed for some images at a time."""
    geometry = zero_padded(case.geometry)
    pattern = _Pattern(_csr.of_outputs, geometry)
    return batched(case, _images_at_once(geometry, case.dtype), lambda part: WeightGradient(part, pattern))


class WeightGradient(Plan):
    """Computes the gradient of the weights for one block of images."""

    algorithm = "toeplitz"
    exploits_sparsity = True

    def __init__(self, case: Case, pattern: _Pattern) -> None:
        super().__init__(case)
        self._pattern = pattern
        self._isa, self._width = _csr.lanes(case.geometry.x_shape[0], case.dtype.itemsize)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the pattern, of the arrays of `csr.contract`, and of two arrays whose columns are x and dout."""
        geometry = zero_padded(self.case.geometry)
        needs = _bounds.needs(geometry, "outputs")
        used = (math.prod(geometry.x_shape[1:]) + math.prod(geometry.out_shape[1:])) * self._width
        used = used * self.case.dtype.itemsize + _csr.contract_bytes(geometry, self.case.threads)
        return max(needs.making, needs.held + used)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work for all images. Zero weights cost the same as all other weights."""
        return _work_of(self.case, _images_at_once(zero_padded(self.case.geometry), self.case.dtype), 1.0)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the gradient of the weights, summed over the images of the block."""
        _check_free(self)
        images, gradients = _columns(first, self._width), _columns(second, self._width)
        _csr.contract(self._pattern(), images, gradients, result, self._isa, self.case.threads)
