"""Modules that several benchmarks use: cases, peers, timing, reports.

With FASTCONV_ISA, OpenBLAS gets kernels for such a CPU, too. It reads OPENBLAS_CORETYPE when NumPy is imported, so the
benchmarks of the choice of algorithms import this package before NumPy.
"""

import os
import platform

_BLAS_KERNELS = {"avx2": "Haswell", "baseline": "Nehalem"}
_wanted = os.environ.get("FASTCONV_ISA", "").strip().lower()
if _wanted in _BLAS_KERNELS and platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("OPENBLAS_CORETYPE", _BLAS_KERNELS[_wanted])
