"""The algorithm `toeplitz`: products of the sparse matrix of a convolution with many right-hand sides."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.toeplitz import csr as _csr
from fastconv.convolution.toeplitz.plan import MatrixPlan, part_of_matrix, plan_weights, zero_padded

#: The largest number of bytes of the matrix rows of one filter. All rows of a filter are in memory at the same time.
_MOST_BYTES = 1 << 30


class Toeplitz(Algorithm):
    """Products with the sparse Toeplitz matrix of the convolution.

    Let A be the matrix of the convolution of one image, as `toeplitz_matrix` returns it. Each column of X is an image,
    and each column of Y is the output of this image.

    - forward: ``Y = A @ X`` with the Toeplitz matrix A. Each column of X is an image.
    - backward_data: ``dX = A.T @ dY``. The transpose A.T is built row by row, like A.
    - backward_weights: the gradient of a weight is the sum of ``dY[row] * X[column]`` over the entries of A that hold
      this weight.

    Only the matrix rows of some filters (for backward_data, of some channels) are in memory at a time. The matrix has
    no entries for zero weights, so zero weights are skipped even if the image has a NaN or infinity at their taps. For
    all other weights, NaN and infinities propagate as in the sum of products.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, section 4.1.
    """

    name = "toeplitz"

    def unsupported(self, case: Case) -> str | None:
        """Refuse layers in which the matrix rows of one filter or, for dx, of one channel need too much memory."""
        op, dtype = case.op, case.dtype
        if op == "backward_weights":
            return None
        rows, columns, nnz = part_of_matrix(op, zero_padded(case.geometry))
        reason = _csr.why_not((rows, columns), nnz, dtype)
        size = _csr.nbytes((rows, columns), nnz, dtype)
        if reason is None and size > _MOST_BYTES:
            part = "filter" if op == "forward" else "channel"
            reason = f"the rows of one {part} in the Toeplitz matrix take {size} bytes, more than {_MOST_BYTES}"
        return reason

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case."""
        return plan_weights(case) if case.op == "backward_weights" else MatrixPlan(case)
