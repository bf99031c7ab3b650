import numpy as np

def lanes(dtype: int, isa: int) -> int: ...
def all_finite(array: np.ndarray) -> bool: ...
def product(
    dtype: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    result: np.ndarray,
    axes: np.ndarray,
    phases: np.ndarray,
    sizes: np.ndarray,
    parts: np.ndarray,
    at: np.ndarray,
    places: np.ndarray,
    space: np.ndarray,
    lists: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def weights(
    dtype: int,
    source: np.ndarray,
    dout: np.ndarray,
    result: np.ndarray,
    axes: np.ndarray,
    phases: np.ndarray,
    sizes: np.ndarray,
    at: np.ndarray,
    places: np.ndarray,
    space: np.ndarray,
    lists: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
