"""The algorithm `im2col`: a matrix product with the columns of the image, and col2im for the gradient of the image."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.im2col import blocks as _blocks
from fastconv.convolution.im2col.plan import ImagesPlan, images_a_block
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.wrappers import batched


class Im2col(Algorithm):
    """The three ops as matrix products with the columns of an image.

    NumPy's BLAS computes the products in its own threads if it is known to use no more threads than the call may use.
    ``OPENBLAS_NUM_THREADS`` or ``threadpoolctl`` sets the number of threads of BLAS. Otherwise fastconv's kernels
    compute the products in the threads of the call. 'auto' takes this algorithm only if BLAS computes the products.

    With G groups of ``f = F / G`` filters and ``C / G`` channels, and L output positions, each group has a matrix of
    columns with ``K = C / G * taps`` rows and L columns:

    - forward:          out = w @ cols         [f x K] @ [K x L]
    - backward_data:    dcols = w.T @ dout     [K x f] @ [f x L]
    - backward_weights: dw += dout @ cols.T    [f x L] @ [L x K]

    The columns of several small images are put side by side in one matrix, so that L is larger. This matrix takes at
    most a few MiB for any N. If the columns of one image take more than 32 MiB, the columns are computed in blocks. A
    block has some of the positions and, if necessary, only some of the K rows. The products of blocks of the same
    positions are added up. In a pointwise layer, the image is already the matrix of columns, so nothing is copied.

    Chellapilla, Puri, Simard, "High performance convolutional neural networks
    for document processing", 2006.
    """

    name = "im2col"

    def plan(self, case: Case) -> Plan:
        """Return a plan that computes several images at a time or, if the columns are large, an image in blocks."""
        cut = _blocks.cut(case.op, case.geometry, case.dtype)
        if cut is not None:
            return _blocks.BlocksPlan(case, cut)
        return batched(case, images_a_block(case.geometry, case.dtype), ImagesPlan)
