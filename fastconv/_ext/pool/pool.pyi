import numpy as np

class MaxBackward:
    items: int
    def __init__(self, *, dtype: int, int64_indices: bool, planes: int, cells: int, outputs: int) -> None: ...
    def run(self, dout: np.ndarray, indices: np.ndarray, dx: np.ndarray, queue: np.ndarray | bytearray) -> bool: ...

class MaxBackwardBands:
    workspace: int
    items: int
    def __init__(
        self,
        *,
        dtype: int,
        int64_indices: bool,
        planes: int,
        cells: int,
        outputs: int,
        cell_begin: np.ndarray,
        cell_end: np.ndarray,
        output_begin: np.ndarray,
        output_end: np.ndarray,
        page_bytes: int,
    ) -> None: ...
    def run(
        self,
        dout: np.ndarray,
        indices: np.ndarray,
        dx: np.ndarray,
        workspace: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> bool: ...
