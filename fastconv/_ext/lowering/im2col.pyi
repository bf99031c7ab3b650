import numpy as np

checked: bool

def im2col(
    dtype: int,
    x: np.ndarray,
    cols: np.ndarray,
    axes: np.ndarray,
    output_ranges: np.ndarray,
    queue: np.ndarray | bytearray,
) -> None: ...
def col2im(
    dtype: int,
    cols: np.ndarray,
    x: np.ndarray,
    axes: np.ndarray,
    output_ranges: np.ndarray,
    block: int,
    queue: np.ndarray | bytearray,
) -> None: ...
