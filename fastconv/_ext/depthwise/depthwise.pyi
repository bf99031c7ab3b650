from collections.abc import Sequence
from typing import Any, final

import numpy as np

def lanes(*, dtype: int, isa: int) -> int: ...
def all_finite(array: np.ndarray) -> bool: ...

@final
class ConvolvePlan:
    items: int
    workspace: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        layout: Any,
        parts: Sequence[Any],
        images: int,
        groups: int,
        rows: int,
        row_step: int,
        group_step: int,
        channels: int,
        channel_pitch: int,
        paired: bool,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        result: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...

@final
class WeightGradientPlan:
    items: int
    workspace: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        layout: Any,
        columns: Any,
        images: int,
        groups: int,
        block_groups: int,
        filters: int,
        channels: int,
        channel_pitch: int,
        parts: int,
    ) -> None: ...
    def run(
        self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray, workspace: np.ndarray, queue: np.ndarray | bytearray
    ) -> None: ...
