import numpy as np

def weights(
    dtype: int,
    source: np.ndarray,
    dout: np.ndarray,
    result: np.ndarray,
    axes: np.ndarray,
    sizes: np.ndarray,
    offsets: np.ndarray,
    taps: np.ndarray,
    planes: np.ndarray,
    filter_planes: np.ndarray,
    overflows: np.ndarray,
    space: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> int: ...
