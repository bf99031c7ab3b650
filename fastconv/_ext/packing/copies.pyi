from collections.abc import Sequence

import numpy as np

class CopyPlan:
    items: int
    elements: int
    nontemporal: bool
    block: tuple[int, int]
    def __init__(
        self,
        *,
        rows: int,
        row_stride: int,
        to_row_stride: int,
        columns: int,
        column_stride: int,
        outer: Sequence[Sequence[int]],
        block_rows: int,
        block_columns: int,
        nontemporal: bool,
    ) -> None: ...
    def run(self, source: np.ndarray, to: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray) -> None: ...
