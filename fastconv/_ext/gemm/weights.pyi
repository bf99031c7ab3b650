import numpy as np

class Contract:
    def __init__(
        self,
        dtype: int,
        axes: np.ndarray,
        phases: np.ndarray,
        sizes: np.ndarray,
        at: np.ndarray,
        space_pitch: int,
        isa: int,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        dout: np.ndarray,
        result: np.ndarray,
        space: np.ndarray,
        queue: np.ndarray | bytearray | None,
        weight_mask: np.ndarray | None = None,
    ) -> None: ...
