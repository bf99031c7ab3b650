from collections.abc import Sequence
from typing import Any

import numpy as np

def lanes(*, dtype: int, isa: int) -> int: ...
def workspace(tiling: Any) -> int: ...

class TransformPlan:
    workspace: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        tiling: Any,
        radices: Sequence[Sequence[int]],
        source: Any,
        weights: Any,
        result: Any,
        scale: float,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        weights: np.ndarray,
        result: np.ndarray,
        bias: np.ndarray | None,
        counts: np.ndarray,
        factors: Sequence[np.ndarray],
        twiddles: np.ndarray | None,
        space: np.ndarray,
        queue: np.ndarray | bytearray | None,
    ) -> None: ...
