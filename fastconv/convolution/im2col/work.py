"""Counts the work of `im2col` for the cost model, which has a measured rate for each kind of work."""

from __future__ import annotations

from fastconv.convolution import gemm as _gemm
from fastconv.convolution.cost.model import NEAR_BYTES, memory, multiply_adds
from fastconv.convolution.plan import Case


def work_of(case: Case, rows: int, positions: int, blocks: int, images: int) -> dict[str, float]:
    """Return the amounts of work of `blocks` blocks: products, columns, and copies of outputs.

    A block has columns of `images` images. In each group, it is a matrix with `rows` rows and `positions` columns. One
    product is computed for each block and group.
    """
    geometry, itemsize, threads = case.geometry, case.dtype.itemsize, case.threads
    f = geometry.w_shape[0] // geometry.groups
    product = multiply_adds(geometry) * itemsize / 4 / threads
    # A matrix times a vector takes the time to read the matrix. An outer product takes the time to write the matrix.
    thin = min(f, rows, positions) == 1
    outer = {"forward": rows, "backward_data": f, "backward_weights": positions}[case.op] == 1
    cells = 0 if geometry.pointwise else geometry.im2col_bytes(case.dtype) / threads
    # In a pointwise layer, the matrix is the image or dout itself. If BLAS multiplies this matrix by a vector, it reads
    # the matrix in order, which is faster than a copy.
    plain = thin and not outer and geometry.pointwise
    moved = memory(geometry, case.dtype, threads)
    copied_rows = geometry.x_shape[0] * geometry.w_shape[0] if images > 1 else 0
    return {
        "product": 0.0 if thin else product,
        "vector": product if thin and not outer else 0.0,
        "vector_far": max(product * 4 - NEAR_BYTES, 0.0) if plain else 0.0,
        "outer": product if outer else 0.0,
        # The time to read, pack or write a matrix grows with its number of elements. This is the number of
        # multiply-adds divided by the dimension that the matrix does not have, for example m * n * k / n = m * k.
        "filters": 0.0 if thin else product / f,
        "rows": 0.0 if thin else product / rows,
        "positions": 0.0 if thin else product / positions,
        "columns": cells,
        "lines": cells / itemsize / geometry.out_spatial[-1],
        "staged": copied_rows * geometry.positions * itemsize,
        "staged_lines": copied_rows,
        **(dict.fromkeys(moved, 0.0) if plain else moved),
        "block": blocks,
        "products": blocks * geometry.groups,
        "wakes": blocks * geometry.groups if threads > 1 and f * rows * positions > _gemm.FEW else 0,
        "call": 1,
    }


def product_bytes(case: Case, groups: int, filters: int, rows: int, positions: int) -> int:
    """Return the bytes of the workspace of the product of a block."""
    dtype, threads = case.dtype, case.threads
    if case.op == "forward":
        return _gemm.workspace_bytes(groups, filters, rows, positions, dtype, threads)
    if case.op == "backward_data":
        return _gemm.workspace_bytes(groups, rows, filters, positions, dtype, threads, first=True)
    return _gemm.workspace_bytes(groups, filters, positions, rows, dtype, threads, second=True)
