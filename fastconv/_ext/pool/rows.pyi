from collections.abc import Sequence

import numpy as np

from fastconv.geometry.axis import Axis

SLACK: int

class ForwardRows:
    workspace: int
    items: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        op: str,
        planes: int,
        axes: Sequence[Axis],
        block_rows: int,
        batch_elements: int,
        pitch: int,
        rows: int,
        phase_pitch: int,
        phase_width: int,
        tap_begin_d: np.ndarray,
        tap_end_d: np.ndarray,
        tap_begin_h: np.ndarray,
        tap_end_h: np.ndarray,
        phase_column: np.ndarray,
        phase_begin: np.ndarray,
        phase_end: np.ndarray,
        tap_offset: np.ndarray,
        tap_distance: np.ndarray,
        first_inside: np.ndarray,
        count_d: np.ndarray,
        count_h: np.ndarray,
        count_w: np.ndarray,
    ) -> None: ...
    def run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        indices: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...

class BackwardRows:
    workspace: int
    items: int
    def __init__(
        self,
        *,
        dtype: int,
        isa: int,
        op: str,
        planes: int,
        axes: Sequence[Axis],
        block_rows: int,
        batch_elements: int,
        left: int,
        right: int,
        pitch: int,
        rows: int,
        offset_end: np.ndarray,
        offset: np.ndarray,
        readers_end_d: np.ndarray,
        readers_d: np.ndarray,
        readers_end_h: np.ndarray,
        readers_h: np.ndarray,
        count_d: np.ndarray,
        count_h: np.ndarray,
        count_w: np.ndarray,
    ) -> None: ...
    def run(
        self,
        dout: np.ndarray,
        norms: np.ndarray | None,
        x: np.ndarray | None,
        dx: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...

class Plan2x2:
    items: int
    def __init__(self, *, dtype: int, isa: int, op: str, planes: int, H: int, W: int, block_rows: int) -> None: ...

class Forward2x2(Plan2x2):
    def run(self, x: np.ndarray, out: np.ndarray, indices: np.ndarray, queue: np.ndarray | bytearray) -> None: ...

class Backward2x2(Plan2x2):
    def run(
        self,
        dout: np.ndarray,
        indices: np.ndarray,
        norms: np.ndarray | None,
        x: np.ndarray | None,
        dx: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> bool: ...
