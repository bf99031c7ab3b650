"""The algorithm `im2col`: a matrix product with the columns of the image, and col2im for the gradient of the image."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.im2col import blocks as _blocks
from fastconv.convolution.im2col.plan import ImagesPlan, images_a_block
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.wrappers import batched


class Im2col(Algorithm):
    """The three ops as matrix products, with the columns of one image at a time.

    NumPy's BLAS computes the products in its own threads, if it is known to use no more threads than the call may.
    ``OPENBLAS_NUM_THREADS`` or ``threadpoolctl`` sets the number of threads of BLAS. Otherwise fastconv's kernels
    compute the products in the threads of the call. 'auto' takes this algorithm only with BLAS.

    Let there be G groups, each with ``f = F / G`` filters and ``K = C / G * taps`` rows of columns, and L output
    positions.

    - forward:          out = w @ cols         [f x K] @ [K x L]
    - backward_data:    dcols = w.T @ dout     [K x f] @ [f x L]
    - backward_weights: dw += dout @ cols.T    [f x L] @ [L x K]

    The columns of several small images are put side by side, so that L is larger. Together they take at most a few MiB,
    whatever N is. If the columns of one image take more than 32 MiB, they are computed in blocks of some positions, and
    if necessary of some of the K rows. The products of these blocks are added up. The image of a pointwise layer is
    its own matrix of columns, so nothing is copied.

    Chellapilla, Puri, Simard, "High performance convolutional neural networks
    for document processing", 2006.
    """

    name = "im2col"

    def plan(self, case: Case) -> Plan:
        """Return a plan for some images at a time, or for blocks of one image if its columns need much memory."""
        cut = _blocks.cut(case.op, case.geometry, case.dtype)
        if cut is not None:
            return _blocks.BlocksPlan(case, cut)
        return batched(case, images_a_block(case.geometry, case.dtype), ImagesPlan)
