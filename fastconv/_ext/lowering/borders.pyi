import numpy as np

def extend(
    x: np.ndarray, padded: np.ndarray, tables: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray
) -> None: ...
def fold(
    padded: np.ndarray, x: np.ndarray, tables: np.ndarray, dtype: int, isa: int, queue: np.ndarray | bytearray
) -> None: ...
