"""The registry of algorithms, made from the imports of this module. A new algorithm needs one line here.

The order of the imports is the order of the registry: at equal cost, 'auto' takes the algorithm that is listed first.
"""
# ruff: noqa: F401, I001

from __future__ import annotations

from fastconv.convolution.base import Algorithm

from fastconv.convolution.reference import Reference
from fastconv.convolution.im2col.algorithm import Im2col
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.winograd.algorithm import Winograd
from fastconv.convolution.depthwise import Depthwise
from fastconv.convolution.fft.algorithm import Fft
from fastconv.convolution.separable.algorithm import Separable
from fastconv.convolution.sparse.algorithm import Sparse
from fastconv.convolution.toeplitz.algorithm import Toeplitz

#: All algorithms by name: one instance of each subclass of `Algorithm` that this module imports.
REGISTRY: dict[str, Algorithm] = {
    kind.name: kind()
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, Algorithm) and kind is not Algorithm
}
