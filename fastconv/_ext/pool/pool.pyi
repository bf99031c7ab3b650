import numpy as np

def max_backward(
    dtype: int,
    dout: np.ndarray,
    indices: np.ndarray,
    dx: np.ndarray,
    int64_indices: bool,
    planes: int,
    queue: np.ndarray | bytearray,
) -> bool: ...
def max_backward_bands(
    dtype: int,
    dout: np.ndarray,
    indices: np.ndarray,
    dx: np.ndarray,
    int64_indices: bool,
    planes: int,
    table: np.ndarray,
    bands: int,
    space: np.ndarray,
    marks: np.ndarray,
    pages: int,
    workspaces: int,
    queue: np.ndarray | bytearray,
) -> bool: ...
