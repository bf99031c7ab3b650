"""The dtypes in which kernels compute."""

from __future__ import annotations

import numpy as np

#: Maps each dtype to the number by which kernels know it. Kernels take this number as an argument.
DTYPES: dict[np.dtype, int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
