import numpy as np

def running(
    dtype: int,
    source: np.ndarray,
    norms: np.ndarray | None,
    factors: np.ndarray | None,
    target: np.ndarray,
    indices: np.ndarray | None,
    wide: bool,
    table: np.ndarray,
    op: int,
    take: int,
    give: int,
    space: np.ndarray,
    slots: int,
    isa: int,
    words: np.ndarray | bytearray,
) -> None: ...
