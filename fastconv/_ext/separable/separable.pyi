import numpy as np

def lanes(dtype: int, isa: int) -> int: ...
def factors(
    dtype: int, w: np.ndarray, kernel: tuple[int, int, int], order: np.ndarray, to: np.ndarray, report_mismatch: bool
) -> tuple[int] | tuple[int, int, float, float] | None: ...
def convolve(
    dtype: int,
    x: np.ndarray,
    factors: np.ndarray,
    bias: np.ndarray | None,
    result: np.ndarray,
    axes: np.ndarray,
    phases: np.ndarray,
    sizes: np.ndarray,
    space: np.ndarray,
    counts: np.ndarray,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
