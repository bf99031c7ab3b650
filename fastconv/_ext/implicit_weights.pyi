import numpy as np

def weights(
    dtype: int,
    source: np.ndarray,
    dout: np.ndarray,
    result: np.ndarray,
    axes: np.ndarray,
    phases: np.ndarray,
    sizes: np.ndarray,
    at: np.ndarray,
    space: np.ndarray,
    space_pitch: int,
    lists: np.ndarray,
    isa: int,
    words: np.ndarray,
) -> None: ...
