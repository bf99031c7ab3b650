import numpy as np

PIECE: int
RECTIFY: int
RECTIFY_GRADIENT: int
LEAK: int
SIGMOID: int
SIGMOID_GRADIENT: int
TANH: int
TANH_GRADIENT: int

def each(
    function: int,
    dtype: int,
    first: np.ndarray,
    second: np.ndarray,
    to: np.ndarray,
    slope: float,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
