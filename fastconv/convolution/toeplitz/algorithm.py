"""The algorithm `toeplitz`: the convolution as the sparse matrix it is, CSR arrays times many right-hand sides."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.toeplitz import csr as _csr
from fastconv.convolution.toeplitz.plan import MatrixPlan, WeightGradient, part_of_matrix, zero_padded

#: The rows of one filter are built together. They may take at most so many bytes.
_MOST_BYTES = 1 << 30


class Toeplitz(Algorithm):
    """With A the matrix that `toeplitz_matrix` gives, of one image, and images as columns of X:

    - forward:          Y = A @ X
    - backward_data:    dX = A.T @ dY; the transpose is built row by row, as A is
    - backward_weights: dw[f, c, tap] = the sums of dY[row] * X[column] over the entries that hold that weight

    Only the rows of some filters (for backward_data of some channels) exist at
    a time. Zero weights have no entries, even where they meet a NaN or
    infinity. For all other weights, NaN and infinities propagate as in the sum
    of products.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, section 4.1.
    """

    name = "toeplitz"
    exploits_sparsity = True

    def unsupported(self, case: Case) -> str | None:
        """Refuse layers in which the rows of one filter, or of one channel, take too much memory."""
        op, dtype = case.op, case.dtype
        if op == "backward_weights":
            return None
        rows, columns, nnz = part_of_matrix(op, zero_padded(case.geometry))
        reason = _csr.why_not((rows, columns), nnz, dtype)
        size = _csr.nbytes((rows, columns), nnz, dtype)
        if reason is None and size > _MOST_BYTES:
            part = "filter" if op == "forward" else "channel"
            reason = f"the rows of one {part} in the Toeplitz matrix take {size} bytes, and at most are {_MOST_BYTES}"
        return reason

    def plan(self, case: Case) -> Plan:
        """Products with the matrix or its transpose, some rows and some images at a time; or sums over its entries."""
        return WeightGradient(case) if case.op == "backward_weights" else MatrixPlan(case)
