"""The algorithm `separable`, for kernels that are outer products, such as boxes, Gaussians and Sobel kernels."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm, Delegated
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.plan import SeparablePlan
from fastconv.convolution.separable.tables import TUNING, Tuning, prepare

#: The largest number of bytes of the workspace of a thread. Kernels with a large extent may need more, and are refused.
_MOST_BYTES = 1 << 24


class Separable(Algorithm):
    """Sums along one axis after the other, for kernels that are outer products.

    In 2-D, the kernel is w[i, j] = u[i] * v[j]. The vectors u and v are called its factors. In 3-D there are three
    factors.

    - forward:          out[y, x] = sum over j of v[j] * (sum over i of u[i] * x[y + i, x + j])
    - backward_data:    dx is computed in the same way from dout, with flipped factors, in each stride phase
    - backward_weights: the gradient of the full kernel is left to the cheapest algorithm that sums products

    For example, a kernel of 31 x 31 taps takes 62 multiply-adds for each output instead of 961. The sums along the
    first axis stay in the cache, so the image is read once and the result is written once.

    The factors are a row and a column of the kernel. If all weights are integers times a common power of two, so are
    the factors. The results are then as exact as sums of all products.

    In any other kernel, a weight w may differ from the product of its factors by
    ``(r * r + 2 * log(m / abs(w))) * eps * abs(w)``. Here r is the number of axes with more than one tap, m is the
    largest weight, and eps is 2**-23 in float32 and 2**-52 in float64. The first term allows for rounding errors of an
    outer product. The second term allows for rounding errors of a Gaussian that is exp of a sum of squares (see
    ``_ext/separable/rank_one_template.h``). A kernel with larger differences is refused.

    The error of a result is at most the sum over all taps of
    ``(s + 2 * r * r + 2 * r + 4 * log(m / abs(w))) * eps / 2 * abs(w) * abs(x)``.
    Here w is the weight of a tap, and x the image element that the tap reads. s is the sum of the kernel sizes, r the
    number of axes with more than one tap, and m the largest weight. eps is 2**-23 in float32 and 2**-52 in float64.

    Algorithms that add up all products have a larger error bound, except for the smallest kernels. In their bound, the
    product of the kernel sizes takes the place of the sum of the kernel sizes.

    As in any sum, numbers below the smallest normal number of the dtype may lose digits.

    A sum along one axis may overflow although the sum of all products is finite. The result is then inf or NaN.

    References
    ----------
    S. Treitel, J. L. Shanks, "The design of multistage separable planar filters", IEEE Transactions on Geoscience
    Electronics 9(1), 1971.
    """

    name = "separable"

    def __init__(self, tuning: Tuning = TUNING) -> None:
        self.tuning = tuning

    def unsupported(self, case: Case) -> str | None:
        """Refuse groups of several channels, kernels of one axis, and kernels whose extent needs too much memory.

        The gradient of the weights is left to other algorithms.
        """
        geometry, dtype = case.geometry, case.dtype
        if geometry.rank == 1:
            return "the kernel must have 2 or 3 axes, and it has only one"
        if geometry.w_shape[1] > 1:
            return f"groups must have one channel, got groups of {geometry.w_shape[1]} channels"
        if case.op == "backward_weights":
            return Delegated("another algorithm computes the gradient of the full kernel")
        prepared = prepare(case.op, geometry, dtype, 1, case.isa, self.tuning)
        nbytes = prepared.compiled.workspace * dtype.itemsize if prepared is not None else 0
        if nbytes > _MOST_BYTES:
            return f"the extent of the kernel makes a block take {nbytes} bytes; at most {_MOST_BYTES} are legal"
        return None

    def plan(self, case: Case) -> Plan:
        """Return a plan."""
        return SeparablePlan(case, self.tuning)
