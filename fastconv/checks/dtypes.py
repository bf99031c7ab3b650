"""The dtypes in which kernels compute. All Python code takes the list of dtypes from here."""

from __future__ import annotations

import numpy as np

#: Maps each dtype to its number, which kernels take as an argument.
DTYPES: dict[np.dtype, int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
