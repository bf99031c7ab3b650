"""The dtypes that kernels compute in: the only list of them in Python."""

from __future__ import annotations

import numpy as np

#: The index of each dtype in the kernels' tables.
DTYPES: dict[np.dtype, int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
