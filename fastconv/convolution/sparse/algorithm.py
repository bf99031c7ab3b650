"""The algorithm `sparse`: products of the weights that are not zero."""

from __future__ import annotations

import math

from fastconv.convolution.base import Algorithm
from fastconv.convolution.blocking import problem_kinds
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.plan import SparseForward, SparseGradient, SparseWeightGradient

#: The most bytes of a block of one output in the widest vectors.
_MOST_BYTES = 1 << 24


class Sparse(Algorithm):
    """Sums of scaled rows in registers, for weights that are mostly zero.

    The padded image is divided into as many parts as a vector has lanes, one
    part in each lane, so that every tap of every output is an aligned offset.
    Once a call, the nonzero weights are listed with their offsets, for each
    row of weights and some channels at a time. A tile of outputs stays in
    registers while the list of one filter runs. Each weight and vector takes
    one multiply-add with a cell from the first-level cache. Zero weights take
    no part, even where they meet an infinity or NaN. For all other weights,
    infinities and NaN propagate as in the sum of products.

    - forward:          out[f] = sum of w * x, over the nonzero taps of f
    - backward_data:    dx[c] = sum of w * dout, over the nonzero taps of c in the flipped kernel, per stride phase
    - backward_weights: dw = sum of dout[f] * x over the positions, one dot product for each nonzero weight, if the
      caller wants only these gradients; otherwise the cheapest algorithm that sums products computes dw

    References
    ----------
    J. Park et al., "Faster CNNs with direct sparse convolutions and guided
    pruning", arXiv:1608.01409 (offsets and values, rows added up); E. Elsen et
    al., "Fast sparse ConvNets", arXiv:1911.09723.
    """

    name = "sparse"
    exploits_sparsity = True

    def delegates(self, case: Case, masked: bool) -> bool:
        """Whether another algorithm computes the op: it does if the gradients of zero weights are wanted, too."""
        return case.op == "backward_weights" and not masked

    def unsupported(self, case: Case) -> str | None:
        """Refuse a kernel with an extent so large that the cells of one output take too much memory."""
        geometry = case.geometry
        for problem, _ in problem_kinds(case.op, geometry):
            cells = math.prod(len(line.phases) * (1 + line.halo) for line in problem.conv_axes)
            if cells * 64 > _MOST_BYTES:
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"the kernel {geometry.kernel} with dilation {dilation} reaches over "
                    f"{cells} cells, and its blocks hold {_MOST_BYTES // 64} at most"
                )
        return None

    def plan(self, case: Case) -> Plan:
        """Tiles and lists of one product, or for dx of one product for each stride phase."""
        if case.op == "forward":
            return SparseForward(case)
        return SparseGradient(case) if case.op == "backward_data" else SparseWeightGradient(case)
