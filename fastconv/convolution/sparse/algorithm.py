"""The algorithm `sparse`: sums of products with the nonzero weights only."""

from __future__ import annotations

import math

from fastconv.convolution.base import Algorithm, Delegated
from fastconv.convolution.blocking import problem_kinds
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.plan import SparseForward, SparseGradient, SparseWeightGradient

#: The largest number of bytes of a block that has one output in each lane of the widest vectors.
_MOST_BYTES = 1 << 24


class Sparse(Algorithm):
    """Sums of scaled rows in registers, for weights that are mostly zero.

    A block of the padded image is divided into parts, one for each lane of a vector, so that each tap of each output
    is an aligned offset. Each call lists the nonzero weights with their offsets. A list has the weights of one filter
    and some channels. A tile of outputs stays in registers while the kernel goes through the list of a filter. Each
    weight takes one multiply-add for each vector of outputs, with cells from the first-level cache. Zero weights are
    skipped, even if they meet an infinity or NaN. For all other weights, infinities and NaN propagate as in the sum of
    products.

    - forward:          out[f] = sum of w * x over the nonzero taps of f
    - backward_data:    dx[c] = sum of w * dout over the nonzero taps of c in the flipped kernel, for each stride phase
    - backward_weights: dw = sum of dout[f] * x over the positions, which is a dot product for each nonzero weight

    If the caller needs the gradients of zero weights, too, the cheapest algorithm that sums products computes dw.

    References
    ----------
    J. Park et al., "Faster CNNs with direct sparse convolutions and guided
    pruning", arXiv:1608.01409 (offsets and values, rows added up); E. Elsen et
    al., "Fast sparse ConvNets", arXiv:1911.09723.
    """

    name = "sparse"

    def unsupported(self, case: Case) -> str | None:
        """Refuse a kernel if the cells that one output reads need too much memory.

        The gradient of all weights, zero or not, is left to other algorithms.
        """
        geometry = case.geometry
        for problem, _ in problem_kinds(case.op, geometry):
            cells = math.prod(len(line.phases) * (1 + line.halo) for line in problem.conv_axes)
            if cells * 64 > _MOST_BYTES:
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"the kernel {geometry.kernel} with dilation {dilation} covers "
                    f"{cells} cells, and a block has at most {_MOST_BYTES // 64}"
                )
        if case.op == "backward_weights" and not case.masked:
            return Delegated("it computes the gradient of nonzero weights only, for pruned=True")
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan of the op. dx takes one product for each stride phase."""
        if case.op == "forward":
            return SparseForward(case)
        return SparseGradient(case) if case.op == "backward_data" else SparseWeightGradient(case)
