from collections.abc import Sequence

import numpy as np

class BordersPlan:
    nbytes: int
    def __init__(
        self,
        *,
        size: Sequence[int],
        padded: Sequence[int],
        lo: int,
        cells: Sequence[np.ndarray],
        firsts: Sequence[np.ndarray],
        copies: Sequence[np.ndarray],
    ) -> None: ...
    def extend(
        self, x: np.ndarray, padded: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray
    ) -> None: ...
    def fold(self, padded: np.ndarray, x: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray) -> None: ...
