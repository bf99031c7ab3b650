"""The algorithm `separable`: kernels that are outer products, as boxes, Gaussians and Sobel kernels are."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.plan import SeparablePlan
from fastconv.convolution.separable.tables import border_of, tables_for

#: The most workspace of a thread. Kernels of a larger extent are refused.
_MOST_BYTES = 1 << 24

#: Chooses the algorithm for the gradient of the weights.
Choose = Callable[[Case], Algorithm]


class Separable(Algorithm):
    """A sum over a box of taps as sums along one axis after the other, where every kernel is an outer product.

    For w[i, j] = u[i] * v[j], and the same with three factors in 3-D:

    - forward:          out[y, x] = sum over j of v[j] * (sum over i of u[i] * x[y + i, x + j])
    - backward_data:    dx likewise from dout, with factors flipped, per stride phase
    - backward_weights: the gradient of the full kernel, by the cheapest algorithm that sums products

    So 31 x 31 taps take 62 products an output instead of 961. Rows of sums along all axes but the last stay in the
    cache, so an image is read once and a result written once.

    The factors are a row and a column of the kernel. Where the kernel holds whole numbers times a power of two the
    factors are such numbers, too, and as exact as the sums of all products. Any other entry w may differ from the
    product of its factors by (r * r + 2 * log(m / abs(w))) * eps * abs(w), where r is the number of axes with more than
    one tap, m the largest entry, and eps 2**-23 or 2**-52. An outer product of rounded numbers may differ by the first
    term, and a Gaussian that is exp of a rounded sum of squares by the second (see ``_ext/rank_one_template.h``).
    Any other kernel is refused. Results then are as close to those of exact sums as

        (sum of kernel_size + 2 * r * r + 2 * r + 4 * log(m / abs(w))) * eps / 2 * abs(w) * abs(x), summed

    which is less than the bound of a sum of all products, which multiplies kernel_size instead of adding it, except
    for the smallest kernels. Numbers below the dtype's least normal number may lose digits, as in any sum.

    Sums along an axis may overflow where the sum of all products does not. Such results are inf or NaN, never finite.

    References
    ----------
    S. Treitel, J. L. Shanks, "The design of multistage separable planar filters", IEEE Transactions on Geoscience
    Electronics 9(1), 1971.
    """

    name = "separable"
    uses_transforms = True
    needs_rank_one = True

    def __init__(self, exact: Choose) -> None:
        self.exact = exact

    def unsupported(self, case: Case) -> str | None:
        """Refuse groups of several channels, and kernels of one axis or of an extent that takes too much memory."""
        geometry, dtype = case.geometry, case.dtype
        if geometry.rank == 1:
            return "a kernel of one axis has nothing to separate"
        if geometry.w_shape[1] > 1:
            return f"it serves groups of one channel, and these have {geometry.w_shape[1]}"
        if case.op != "backward_weights":
            tables = tables_for(case.op, geometry, dtype, 1, case.isa)
            nbytes = tables.space * dtype.itemsize if tables is not None else 0
            if nbytes > _MOST_BYTES:
                return f"its kernel reaches so far that a block takes {nbytes} bytes, and at most are {_MOST_BYTES}"
        return None

    def delegates(self, case: Case, masked: bool) -> bool:
        """Whether another algorithm computes the op: the gradient of the weights is that of the full kernel."""
        return case.op == "backward_weights"

    def reads_borders(self, case: Case) -> bool:
        """Whether the kernel reads the border itself: forward, it copies rows and sums of the image."""
        return border_of(case.op, case.geometry) > 0

    def plan(self, case: Case) -> Plan:
        """Tables of blocks; for the gradient of the weights, the plan of the algorithm that computes it."""
        if case.op == "backward_weights":
            return self.exact(case).plan(case)
        return SeparablePlan(case)

    def cost(self, case: Case) -> float:
        """For the gradient of the weights, the cost of the algorithm that computes it."""
        return self.exact(case).cost(case) if case.op == "backward_weights" else super().cost(case)
