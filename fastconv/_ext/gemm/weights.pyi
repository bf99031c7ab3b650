from typing import Any

import numpy as np

class GradientPlan:
    workspace: int
    shared: int
    items: int
    nbytes: int

    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        images: int,
        groups: int,
        filters: int,
        channels: int,
        block_channels: int,
        parts: int,
        layout: Any,
        channel_pitch: int,
        cell_offsets: np.ndarray,
        panel_bytes: int,
    ) -> None: ...
    def run(
        self,
        x: np.ndarray,
        dout: np.ndarray,
        result: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray | None,
        weight_mask: np.ndarray | None = None,
    ) -> None: ...
