import numpy as np

def workspace_rows(lo: int, hi: int, C: int, is_gradient: bool) -> int: ...

class LrnKernel:
    workspace: int
    def __init__(
        self, *, dtype: int, isa: int, N: int, C: int, S: int, lo: int, hi: int, width: int, is_gradient: bool
    ) -> None: ...
    def run(
        self,
        x: np.ndarray,
        dout: np.ndarray | None,
        to: np.ndarray,
        alpha: float,
        beta: float,
        k: float,
        space: np.ndarray,
        queue: np.ndarray | bytearray,
    ) -> None: ...
