"""im2col and a matrix product, for an image or a block of one; col2im for the gradient of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.convolution import gemm as _gemm
from fastconv.convolution.base import MethodAlgorithm
from fastconv.convolution.cost.model import memory, multiply_adds
from fastconv.convolution.im2col import blocks as _columns
from fastconv.convolution.ops import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.lowering.columns import lower, scatter
from fastconv.runtime import workspace as _workspace

#: Columns of several small images are put side by side up to so many bytes. Those of one image may take more, up to
#: `_columns.MOST_BYTES`.
_BLOCK_BYTES = 1 << 21
#: A product of fewer positions reads the weights too often, so images are put side by side until there are as many, or
#: until the columns take `_FEW_BLOCK_BYTES`.
_FEW_POSITIONS, _FEW_BLOCK_BYTES = 256, 1 << 23


class Im2col(MethodAlgorithm):
    """Three matrix products, on the columns of one image at a time.

    NumPy's BLAS multiplies, in its own threads, if it is known to use no more threads than the call may.
    ``OPENBLAS_NUM_THREADS`` or ``threadpoolctl`` sets its number. Otherwise fastconv's kernels multiply, in the threads
    of the call. 'auto' takes this algorithm only if BLAS multiplies.

    With G groups, ``f = F / G`` filters and ``K = C / G * taps`` rows in a
    group, and L output positions:

    - forward:          out = w @ cols         [f x K] @ [K x L]
    - backward_data:    dcols = w.T @ dout     [K x f] @ [f x L]
    - backward_weights: dw += dout @ cols.T    [f x L] @ [L x K]

    Small images are lowered B at a time, side by side, so that L is B times as long; B is limited to a few MiB
    whatever N is. An image of more than 32 MiB of columns is lowered in blocks of some positions, and if necessary of
    some of the K rows, whose products are added up. A pointwise layer is not lowered, because the image is its
    columns.

    Chellapilla, Puri, Simard, "High performance convolutional neural networks
    for document processing", 2006.
    """

    name = "im2col"
    own_threads = False
    needs_blas = True

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """The columns of a block, its gradients or results, one more dw, and the workspace of the product."""
        cut = _columns.cut(op, geometry, dtype)
        if cut is not None:
            return cut.workspace_bytes(op, dtype, threads)
        count = _images_a_block(geometry, dtype)
        side_by_side = count * geometry.w_shape[0] * geometry.positions if count > 1 else 0
        columns = 0 if geometry.pointwise else count * math.prod(geometry.cols_shape[1:])
        more = math.prod(geometry.w_shape) if op == "backward_weights" else 0
        groups, k = geometry.groups, math.prod(geometry.w_shape[1:])
        f, n = geometry.w_shape[0] // groups, count * geometry.positions
        if op == "forward":
            product = _gemm.workspace_bytes(groups, f, k, n, dtype, threads)
        elif op == "backward_data":
            product = _gemm.workspace_bytes(groups, k, f, n, dtype, threads, first=True)
        else:
            product = _gemm.workspace_bytes(groups, f, n, k, dtype, threads, second=True)
        return (columns + side_by_side + more) * dtype.itemsize + product

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Products, one for each block and group; rows and bytes of columns; and images put side by side."""
        cut, images = _columns.cut(op, geometry, dtype), geometry.x_shape[0]
        if cut is None:
            count = _images_a_block(geometry, dtype)
            blocks, positions = -(-images // count), count * geometry.positions
            k = math.prod(geometry.w_shape[1:])
        else:
            count, k, positions = 1, cut.rows, cut.positions
            blocks = images * cut.blocks_of_positions * cut.blocks_of_rows
        f = geometry.w_shape[0] // geometry.groups
        product = multiply_adds(geometry) * dtype.itemsize / 4 / threads
        # A matrix times a vector takes as long as reading the matrix, and an outer product as long as writing it.
        thin = min(f, k, positions) == 1
        outer = {"forward": k, "backward_data": f, "backward_weights": positions}[op] == 1
        cells = 0 if geometry.pointwise else geometry.im2col_bytes(dtype) / threads
        beside = images * geometry.w_shape[0] if count > 1 else 0
        return {
            "product": 0.0 if thin else product,
            "vector": product if thin and not outer else 0.0,
            "outer": product if outer else 0.0,
            # Reading, packing and writing each matrix of a product takes a part of its time: 1 / m of it, and so on.
            "filters": 0.0 if thin else product / f,
            "rows": 0.0 if thin else product / k,
            "positions": 0.0 if thin else product / positions,
            "columns": cells,
            "lines": cells / dtype.itemsize / geometry.out_spatial[-1],
            "beside": beside * geometry.positions * dtype.itemsize,
            "beside_lines": beside,
            **memory(geometry, dtype, threads),
            "block": blocks,
            "products": blocks * geometry.groups,
            "wakes": blocks * geometry.groups if threads > 1 and f * k * positions > _gemm.FEW else 0,
            "call": 1,
        }

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """The bias is added while the output of a block is still in cache."""
        cut = _columns.cut("forward", geometry, x.dtype)
        if cut is not None:
            _columns.Blocks("forward", cut, x.dtype, threads).forward(x, w, b, out)
            return
        weights = _matrix(w, geometry)
        bias = None if b is None else b.reshape(geometry.groups, -1, 1)
        for block in _blocks(geometry, x.dtype, threads):
            product = block.product(out)
            # [f x K] @ [K x L], one product per group
            _gemm.product(weights, block.columns(x), product, threads)
            if bias is not None:
                product += bias
            block.store(out)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """The transposed weights times dout are the gradient of the columns, which col2im sums up."""
        cut = _columns.cut("backward_data", geometry, dx.dtype)
        if cut is not None:
            _columns.Blocks("backward_data", cut, dx.dtype, threads).backward_data(dout, w, dx)
            return
        weights = _matrix(w, geometry).transpose(0, 2, 1)
        for block in _blocks(geometry, dx.dtype, threads):
            # [K x f] @ [f x L], one product per group
            _gemm.product(weights, block.gradient(dout), block.buffer(dx), threads)
            block.scatter(dx)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Blocks are summed one after the other, so that the result does not depend on threads."""
        cut = _columns.cut("backward_weights", geometry, x.dtype)
        if cut is not None:
            _columns.Blocks("backward_weights", cut, x.dtype, threads).backward_weights(x, dout, dw)
            return
        total = _matrix(dw, geometry)
        part = np.empty_like(total)
        for block in _blocks(geometry, x.dtype, threads):
            target = part if block.images.start else total
            # [f x L] @ [L x K], one product per group
            _gemm.product(block.gradient(dout), block.columns(x).transpose(0, 2, 1), target, threads)
            if target is part:
                total += part


def _matrix(w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Weights (F, C / G, *kernel) as (G, f, K)."""
    return w.reshape(geometry.groups, geometry.w_shape[0] // geometry.groups, -1)


def _images_a_block(geometry: ConvGeometry, dtype: np.dtype) -> int:
    if geometry.pointwise:
        return 1
    each = math.prod(geometry.cols_shape[1:]) * dtype.itemsize
    few = min(-(-_FEW_POSITIONS // geometry.positions), _FEW_BLOCK_BYTES // each)
    return max(1, min(max(_BLOCK_BYTES // each, few), geometry.x_shape[0]))


def _blocks(geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Iterator[_Block]:
    """The blocks of the batch, on one workspace."""
    count, images = _images_a_block(geometry, dtype), geometry.x_shape[0]
    (_, channels, positions), filters = geometry.cols_shape, geometry.w_shape[0]
    if geometry.pointwise:
        yield from (_Block(geometry, slice(n, n + 1), None, None, threads) for n in range(images))
        return
    # Rows of columns, and with several images rows of outputs below them, each (count, positions) long.
    rows = channels + (filters if count > 1 else 0)
    with _workspace.workspace("the columns of one image", (rows, count, positions), dtype) as space:
        for begin in range(0, images, count):
            end = min(begin + count, images)
            # The last block may be shorter. It uses the front of the workspace, so that rows stay contiguous.
            part = space.reshape(-1)[: rows * (end - begin) * positions].reshape(rows, end - begin, positions)
            beside = part[channels:] if count > 1 else None
            yield _Block(geometry, slice(begin, end), part[:channels], beside, threads)


@dataclass
class _Block:
    """Some images of the batch as matrices, one for each group: rows by (image, position).

    `cols` (C * taps, B, L) is None if the image is its own columns. `beside`
    (F, B, L) is None if there is one image, whose output is a matrix itself.
    """

    geometry: ConvGeometry
    images: slice
    cols: np.ndarray | None
    beside: np.ndarray | None
    threads: int

    def _by_group(self, array: np.ndarray) -> np.ndarray:
        rows = (
            self.geometry.w_shape[0] if array is self.beside else self.geometry.cols_shape[1]
        ) // self.geometry.groups
        return array.reshape(self.geometry.groups, rows, -1)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """The lowered images, (G, K, B * L)."""
        if self.cols is None:
            return self._by_group(x[self.images])
        lower(*self._lowered(x), threads=self.threads)
        return self._by_group(self.cols)

    def buffer(self, dx: np.ndarray) -> np.ndarray:
        """The array for the gradient of the columns, (G, K, B * L)."""
        return self._by_group(dx[self.images] if self.cols is None else self.cols)

    def scatter(self, dx: np.ndarray) -> None:
        """Compute dx from the gradient in `buffer`."""
        if self.cols is not None:
            image, cols, geometry = self._lowered(dx)
            scatter(cols, image, geometry, self.threads)

    def product(self, out: np.ndarray) -> np.ndarray:
        """Where the product goes, (G, f, B * L)."""
        if self.beside is None:
            return out[self.images].reshape(self.geometry.groups, -1, self.geometry.positions)
        return self._by_group(self.beside)

    def store(self, out: np.ndarray) -> None:
        """Copy the product to `out`, unless it is there already."""
        if self.beside is not None:
            self._rows(out)[...] = self.beside.transpose(1, 0, 2)

    def gradient(self, dout: np.ndarray) -> np.ndarray:
        """dout of the block, (G, f, B * L)."""
        if self.beside is None:
            return dout[self.images].reshape(self.geometry.groups, -1, self.geometry.positions)
        self.beside[...] = self._rows(dout).transpose(1, 0, 2)
        return self._by_group(self.beside)

    def _rows(self, array: np.ndarray) -> np.ndarray:
        """The outputs of the block as (B, F, L)."""
        return array[self.images].reshape(-1, self.geometry.w_shape[0], self.geometry.positions)

    def _lowered(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, ConvGeometry]:
        """The images and their columns as the lowering kernels take them, and their geometry."""
        assert self.cols is not None
        part = self.geometry.for_batch(self.images.stop - self.images.start)
        if part.rank == 3 or self.beside is None:
            return x[self.images], self.cols.transpose(1, 0, 2), part
        # Images side by side are a volume with one depth for each image, so that every tap is lowered for all at once.
        volume = _arrays.lift(x[self.images], 2)[:, :, 0].swapaxes(0, 1)[np.newaxis]
        return volume, self.cols.reshape(1, len(self.cols), -1), part.batch_as_axis
