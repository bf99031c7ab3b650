import numpy as np

class Multiply:
    def __init__(
        self,
        dtype: int,
        axes: np.ndarray,
        phases: np.ndarray,
        sizes: np.ndarray,
        at: np.ndarray,
        tap_of: np.ndarray,
        space_pitch: int,
        isa: int,
        probing: bool,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        result: np.ndarray,
        space: np.ndarray,
        queue: np.ndarray | bytearray | None,
    ) -> bool: ...
