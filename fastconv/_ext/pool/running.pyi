import numpy as np

def running(
    dtype: int,
    source: np.ndarray,
    norms: np.ndarray | None,
    factors: np.ndarray | None,
    target: np.ndarray,
    indices: np.ndarray | None,
    int64_indices: bool,
    table: np.ndarray,
    op: int,
    input_op: int,
    result_op: int,
    space: np.ndarray,
    workspaces: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
