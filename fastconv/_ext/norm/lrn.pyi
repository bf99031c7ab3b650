import numpy as np

def forward(
    dtype: int,
    x: np.ndarray,
    y: np.ndarray,
    shape: tuple[int, int, int],
    window: tuple[int, int],
    constants: tuple[float, float, float],
    width: int,
    space: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def backward(
    dtype: int,
    dout: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    shape: tuple[int, int, int],
    window: tuple[int, int],
    constants: tuple[float, float, float],
    width: int,
    space: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
