"""The dtypes in which kernels compute. All Python code takes the list of dtypes from here."""

from __future__ import annotations

import numpy as np

#: Maps each dtype to its number, which kernels take as an argument.
DTYPES: dict[np.dtype, int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
#: Maps each dtype to its name in C. Cython compiles a function for each dtype, and this name selects one of them.
NAMES = dict(zip(DTYPES, ("float", "double"), strict=True))
