from collections.abc import Sequence
from typing import Any, final

import numpy as np

def lanes(*, dtype: int, isa: int) -> int: ...
def factors(
    w: np.ndarray,
    to: np.ndarray,
    *,
    dtype: int,
    kernel: tuple[int, int, int],
    order: np.ndarray,
    report_mismatch: bool = ...,
) -> tuple[int] | tuple[int, int, float, float] | None: ...

@final
class ConvolvePlan:
    items: int
    workspace: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        axes: Sequence[Any],
        blocks: Sequence[int],
        images: int,
        channels: int,
        shared: int,
        sources: int,
        entries: int,
        flat: bool,
        border: str,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        factors: np.ndarray,
        b: np.ndarray | None,
        result: np.ndarray,
        not_finite: np.ndarray | bytearray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...
