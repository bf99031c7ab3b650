import numpy as np

PASSES: int

def lanes(dtype: int, isa: int) -> int: ...
def run(
    dtype: int,
    source: np.ndarray,
    weights: np.ndarray,
    result: np.ndarray,
    bias: np.ndarray | None,
    counts: np.ndarray,
    numbers: np.ndarray,
    factors: np.ndarray,
    scale: float,
    space: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray | None,
) -> None: ...
