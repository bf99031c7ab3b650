"""The plans of `im2col` for images whose columns are not divided into blocks.

In the shapes of matrix products, `filters` is the number of filters of a group. `rows` is the number of channels of a
group times the number of taps. `positions` is the number of output positions of all images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.convolution import gemm as _gemm
from fastconv.convolution.base import add_bias
from fastconv.convolution.im2col.work import product_bytes, work_of
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.lowering.columns import lower, scatter
from fastconv.runtime import workspace as _workspace

#: The largest size, in bytes, of a matrix with the columns of several images. The columns of a single image may take up
#: to `blocks.MOST_BYTES` bytes.
_BLOCK_BYTES = 1 << 21
#: A product with few columns is slow, because it reads all weights for few results. So the columns of several images
#: are put in one matrix, until the matrix has `_FEW_POSITIONS` columns or takes `_FEW_BLOCK_BYTES` bytes.
_FEW_POSITIONS, _FEW_BLOCK_BYTES = 256, 1 << 23


def images_a_block(geometry: ConvGeometry, dtype: np.dtype) -> int:
    """Return the number of images whose columns are put side by side in one matrix."""
    if geometry.pointwise:
        return 1
    each = math.prod(geometry.cols_shape[1:]) * dtype.itemsize
    few = min(-(-_FEW_POSITIONS // geometry.positions), _FEW_BLOCK_BYTES // each)
    return max(1, min(max(_BLOCK_BYTES // each, few), geometry.x_shape[0]))


class ImagesPlan(Plan):
    """Computes one matrix product for each group. The columns of all images are a factor of this product. For
    backward_data, they are its result.

    The columns are an array (C * taps, N, positions). With several images, the outputs are computed in an array (F, N,
    positions), and then copied to `out`. For a gradient, dout is first copied to an array of this shape. With a single
    image, `out` and dout are used without a copy. In a pointwise layer, nothing is copied.
    """

    algorithm = "im2col"
    own_threads, needs_blas = False, True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        geometry = case.geometry
        self._groups, self._count = geometry.groups, geometry.x_shape[0]
        (_, rows, positions), filters = geometry.cols_shape, geometry.w_shape[0]
        self._rows, self._matrix = rows, (geometry.groups, filters // geometry.groups, -1)
        self._outputs = self._count, filters, positions
        self._side_by_side = self._count > 1
        #: The shape of the workspace. Its first rows hold the columns, and the other rows hold copies of outputs or
        #: dout.
        self._shape = rows + filters * self._side_by_side, self._count, positions
        # Several images are lowered as one volume whose depth is N. Each tap is then copied for all images at once.
        self._is_volume = self._side_by_side and geometry.rank < 3
        self._lowered = geometry.batch_as_axis if self._is_volume else geometry

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the columns, of the copied outputs, and of the workspace of the product."""
        geometry = self.case.geometry
        copied = 0 if geometry.pointwise else math.prod(self._shape)
        rows, positions = math.prod(geometry.w_shape[1:]), self._count * geometry.positions
        product = product_bytes(self.case, self._groups, self._matrix[1], rows, positions)
        return copied * self.case.dtype.itemsize + product

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work of a run."""
        geometry = self.case.geometry
        images = images_a_block(geometry, self.case.dtype)
        blocks = -(-self._count // images)
        return work_of(self.case, math.prod(geometry.w_shape[1:]), images * geometry.positions, blocks, images)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the result of the op."""
        if self.case.geometry.pointwise:
            self._multiply(first, second, third, result, None, None)
            return
        with _workspace.workspace("the columns of one image", self._shape, self.case.dtype) as space:
            outputs = space[self._rows :] if self._side_by_side else None
            self._multiply(first, second, third, result, space[: self._rows], outputs)

    def _multiply(
        self,
        first: np.ndarray,
        second: np.ndarray,
        third: np.ndarray | None,
        result: np.ndarray,
        cols: np.ndarray | None,
        outputs: np.ndarray | None,
    ) -> None:
        op, threads = self.case.op, self.case.threads
        if op == "forward":
            target = (result if outputs is None else outputs).reshape(self._matrix)
            # [filters x rows] @ [rows x positions], one product per group
            _gemm.product(second.reshape(self._matrix), self._columns(first, cols), target, threads)
            if third is not None:
                target += third.reshape(self._groups, -1, 1)
            if outputs is not None:
                result.reshape(self._outputs)[...] = outputs.transpose(1, 0, 2)
        elif op == "backward_data":
            weights = second.reshape(self._matrix).transpose(0, 2, 1)
            columns = self._by_group(result if cols is None else cols)
            # [rows x filters] @ [filters x positions], one product per group
            _gemm.product(weights, self._gradient(first, outputs), columns, threads)
            if cols is not None:
                image, matrix = self._lowered_arrays(result, cols)
                scatter(matrix, image, self._lowered, threads)
            add_bias(third, result)
        else:
            gradient, columns = self._gradient(second, outputs), self._columns(first, cols)
            # [filters x positions] @ [positions x rows], one product per group
            _gemm.product(gradient, columns.transpose(0, 2, 1), result.reshape(self._matrix), threads)

    def _by_group(self, array: np.ndarray) -> np.ndarray:
        """Return a view of columns with shape (groups, channels of a group times taps, N times positions)."""
        return array.reshape(self._groups, self._rows // self._groups, -1)

    def _columns(self, x: np.ndarray, cols: np.ndarray | None) -> np.ndarray:
        """Compute the columns of the images, and return them in the shape that `_by_group` gives."""
        if cols is None:
            return self._by_group(x)
        image, matrix = self._lowered_arrays(x, cols)
        lower(image, matrix, self._lowered, threads=self.case.threads)
        return self._by_group(cols)

    def _gradient(self, dout: np.ndarray, outputs: np.ndarray | None) -> np.ndarray:
        """Return dout with shape (groups, filters of a group, N times positions)."""
        if outputs is None:
            return dout.reshape(self._matrix)
        outputs[...] = dout.reshape(self._outputs).transpose(1, 0, 2)
        return outputs.reshape(self._matrix)

    def _lowered_arrays(self, x: np.ndarray, cols: np.ndarray) -> tuple[Any, Any]:
        """Return views of the images and of their columns, in the shapes that `lower` and `scatter` take."""
        if not self._is_volume:
            return x, cols.transpose(1, 0, 2)
        return _arrays.lift(x, 2)[:, :, 0].swapaxes(0, 1)[np.newaxis], cols.reshape(1, self._rows, -1)
