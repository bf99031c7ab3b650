from collections.abc import Sequence
from typing import Any

import numpy as np

checked: bool

class LoweringPlan:
    nbytes: int
    def __init__(self, *, axes: Sequence[Any], output_ranges: np.ndarray) -> None: ...
    def im2col(self, dtype: int, x: np.ndarray, cols: np.ndarray, queue: np.ndarray | bytearray) -> None: ...
    def col2im(
        self, dtype: int, cols: np.ndarray, x: np.ndarray, block: int, queue: np.ndarray | bytearray
    ) -> None: ...
