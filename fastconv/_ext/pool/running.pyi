from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.geometry.axis import Axis

SLACK: int
FROM_LAST: int
FROM_EARLY: int
FROM_NOTHING: int

class AxisByAxis:
    workspace: int
    items: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        op: str,
        int64_indices: bool,
        axes: Sequence[Axis],
        include_pad: bool,
        planes: int,
        group: int,
        depth: Any,
        height: Any,
        width: Any,
        row_pitch: int,
        pitch: int,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        norms: np.ndarray | None,
        factors: np.ndarray | None,
        target: np.ndarray,
        indices: np.ndarray | None,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...
