import numpy as np

def copy(
    source: np.ndarray, to: np.ndarray, plan: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray
) -> None: ...
