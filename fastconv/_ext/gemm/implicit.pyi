from typing import Any

import numpy as np

CONTIGUOUS: int
PADDED_GRID: int
ROW_WISE: int
PACKED: int
SWAPPED: int

LAYOUT_GENERIC: int
LAYOUT_ROWS: int
LAYOUT_TAPS: int
LAYOUT_COLUMNS: int

MOST_TILES: int

class ProductPlan:
    workspace: int
    shared: int
    items: int
    nbytes: int

    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        problem: Any,
        tiling: Any,
        layout: Any,
        channel_pitch: int,
        cell_offsets: np.ndarray,
        weight_layout: int,
        row_step: int,
        channel_step: int,
        weight_offsets: np.ndarray,
        shared: bool,
        probing: bool,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        result: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray | None,
    ) -> bool: ...
