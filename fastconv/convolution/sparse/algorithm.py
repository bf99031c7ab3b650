"""The algorithm `sparse`, which multiplies by nonzero weights only."""

from __future__ import annotations

import math

from fastconv.convolution.base import Algorithm, Delegated
from fastconv.convolution.blocking import problem_kinds
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.plan import SparseForward, SparseGradient, SparseWeightGradient
from fastconv.convolution.sparse.tiling import DEFAULT_TUNING, Tuning

#: The smallest padded block has one output in each lane of a vector. A case is refused if even this block takes more
#: than this number of bytes.
_MOST_BYTES = 1 << 24


class Sparse(Algorithm):
    """Sums of products with nonzero weights only, for weights that are mostly zero.

    A padded block of the image is divided into equal parts, one for each vector lane. Each vector holds the same
    element of all parts. So neighbouring outputs of a part are in different vectors, and each tap reads whole aligned
    vectors.

    Each call lists the nonzero weights, with the offsets of the vectors that they multiply. A list has the weights of
    one filter and some channels. The compiled kernel goes through the list once for each tile of outputs. The sums of
    the tile stay in registers, and the image elements of the tile stay in the first-level cache. Each weight takes one
    multiply-add for each vector of outputs.

    Zero weights are skipped, even if the image has an infinity or NaN at their taps. For all other weights, infinities
    and NaN propagate as in the sum of products.

    - forward:          out[f] = sum of w * x over the nonzero taps of f
    - backward_data:    dx[c] = sum of w * dout over the nonzero taps of c in the flipped kernel, for each stride phase
      of dx
    - backward_weights: dw = sum of dout[f] * x over the positions, which is a dot product for each nonzero weight

    If gradients of zero weights are needed, too, another algorithm computes dw: the cheapest one without transforms.

    References
    ----------
    J. Park et al., "Faster CNNs with direct sparse convolutions and guided
    pruning", arXiv:1608.01409 (offsets and values, rows added up); E. Elsen et
    al., "Fast sparse ConvNets", arXiv:1911.09723.
    """

    name = "sparse"

    def __init__(self, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.tuning = tuning

    def unsupported(self, case: Case) -> str | None:
        """Refuse a kernel whose extent is so large that even the smallest padded block needs too much memory."""
        geometry = case.geometry
        for problem, _ in problem_kinds(case.op, geometry):
            cells = math.prod(len(line.phases) * (1 + line.halo) for line in problem.conv_axes)
            if cells * 64 > _MOST_BYTES:
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"the kernel {geometry.kernel} with dilation {dilation} covers {cells} elements of the image; "
                    f"at most {_MOST_BYTES // 64} are legal"
                )
        if case.op == "backward_weights" and not case.masked:
            return Delegated("it computes the gradient of nonzero weights only, for pruned=True")
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan of the op."""
        kinds = {"forward": SparseForward, "backward_data": SparseGradient, "backward_weights": SparseWeightGradient}
        return kinds[case.op](case, self.tuning)
