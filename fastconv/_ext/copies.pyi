import numpy as np

def copy(
    source: np.ndarray, to: np.ndarray, plan: np.ndarray, dtype: int, isa: int, words: np.ndarray | bytearray
) -> None: ...
