"""The algorithm `im2col`: columns of the image and a matrix product; col2im for the gradient of the image."""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.im2col import blocks as _blocks
from fastconv.convolution.im2col.plan import plan_images
from fastconv.convolution.plan import Case, Plan


class Im2col(Algorithm):
    """Three matrix products, on the columns of one image at a time.

    NumPy's BLAS multiplies, in its own threads, if it is known to use no more threads than the call may.
    ``OPENBLAS_NUM_THREADS`` or ``threadpoolctl`` sets its number. Otherwise fastconv's kernels multiply, in the threads
    of the call. 'auto' takes this algorithm only if BLAS multiplies.

    With G groups, ``f = F / G`` filters and ``K = C / G * taps`` rows in a
    group, and L output positions:

    - forward:          out = w @ cols         [f x K] @ [K x L]
    - backward_data:    dcols = w.T @ dout     [K x f] @ [f x L]
    - backward_weights: dw += dout @ cols.T    [f x L] @ [L x K]

    Small images are lowered B at a time, side by side, so that L is B times as long; B is limited to a few MiB
    whatever N is. An image of more than 32 MiB of columns is lowered in blocks of some positions, and if necessary of
    some of the K rows, whose products are added up. A pointwise layer is not lowered, because the image is its
    columns.

    Chellapilla, Puri, Simard, "High performance convolutional neural networks
    for document processing", 2006.
    """

    name = "im2col"
    own_threads = False
    needs_blas = True

    def plan(self, case: Case) -> Plan:
        """Some images at a time, or if the columns of one take much memory, blocks of them."""
        cut = _blocks.cut(case.op, case.geometry, case.dtype)
        return plan_images(case) if cut is None else _blocks.BlocksPlan(case, cut)
