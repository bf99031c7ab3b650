from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_PANELS: int

class ProductPlan:
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        problem: Any,
        block: Sequence[int],
        block_images: int,
        block_rows: int,
        pass_rows: int,
        chunk: int,
        weights_resident: bool,
        cells: int,
        lanes: int,
        v_step: int,
        v_pitch: int,
        u_size: int,
        u_padding: int,
        m_pitch: int,
        offsets: np.ndarray,
        taps: np.ndarray,
        output_offsets: np.ndarray,
        planes: np.ndarray,
    ) -> None: ...
    @property
    def workspace(self) -> int: ...
    @property
    def items(self) -> int: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        result: np.ndarray,
        overflows: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> int: ...

class GradientPlan:
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        problem: Any,
        block: Sequence[int],
        block_images: int,
        block_rows: int,
        block_channels: int,
        parts: int,
        cells: int,
        results: int,
        lanes: int,
        row_lanes: int,
        v_step: int,
        v_pitch: int,
        u_step: int,
        u_pitch: int,
        m_step: int,
        m_pitch: int,
        offsets: np.ndarray,
        taps: np.ndarray,
        planes: np.ndarray,
        filter_planes: np.ndarray,
    ) -> None: ...
    @property
    def workspace(self) -> int: ...
    @property
    def items(self) -> int: ...
    def run(
        self,
        x: np.ndarray,
        dout: np.ndarray,
        dw: np.ndarray,
        overflows: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> int: ...
