"""Modules that several benchmarks use: cases, peers, timing, reports.

FASTCONV_ISA makes an older CPU of a newer one, so OpenBLAS then gets kernels of the older one, too. It reads its
variable when NumPy is imported, which the modules of this package do.
"""

import os

_BLAS_KERNELS = {"avx2": "Haswell", "baseline": "Nehalem"}
if (_isa := os.environ.get("FASTCONV_ISA", "")) in _BLAS_KERNELS:
    os.environ.setdefault("OPENBLAS_CORETYPE", _BLAS_KERNELS[_isa])
