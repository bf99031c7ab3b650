import numpy as np

def product(
    dtype: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    result: np.ndarray,
    axes: np.ndarray,
    sizes: np.ndarray,
    offsets: np.ndarray,
    taps: np.ndarray,
    starts: np.ndarray,
    planes: np.ndarray,
    overflows: np.ndarray,
    space: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> int: ...
