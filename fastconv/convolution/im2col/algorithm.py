"""The algorithm `im2col`: a matrix product with the columns of the image, and col2im for the gradient of the image."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.im2col import blocks as _blocks
from fastconv.convolution.im2col.plan import ImagesPlan, images_a_block
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.wrappers import batched


class Im2col(Algorithm):
    """The three ops as matrix products with the columns of an image.

    NumPy's BLAS computes the products if it is known to use no more threads than the call may. If not, fastconv's own
    kernels compute them. 'auto' takes this algorithm only if BLAS computes the products. ``OPENBLAS_NUM_THREADS`` or
    ``threadpoolctl`` sets the number of threads of BLAS.

    In each group, the columns of an image are a matrix with one row for each tap of each channel, and one column for
    each output position. The products of a group are:

    - forward:          out = w @ cols         [filters x rows] @ [rows x positions]
    - backward_data:    dcols = w.T @ dout     [rows x filters] @ [filters x positions]
    - backward_weights: dw += dout @ cols.T    [filters x positions] @ [positions x rows]

    The columns of several small images are put side by side in one matrix, so that the products are larger. This matrix
    takes at most a few MiB, however many images there are. If the columns of one image take more than 32 MiB, the
    columns are computed in blocks. A block has some of the output positions and, if necessary, only some of the rows.
    The products of blocks of the same positions are added up. In a pointwise layer, the image is already the matrix of
    columns, so nothing is copied.

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
