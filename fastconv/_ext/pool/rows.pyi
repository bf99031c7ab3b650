import numpy as np

def forward_rows(
    dtype: int,
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    norm: bool,
    table: np.ndarray,
    space: np.ndarray,
    workspaces: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def backward_rows(
    dtype: int,
    dout: np.ndarray,
    norms: np.ndarray | None,
    x: np.ndarray | None,
    dx: np.ndarray,
    table: np.ndarray,
    space: np.ndarray,
    workspaces: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def forward_2x2(
    dtype: int,
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    norm: bool,
    height: int,
    width: int,
    rows: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def backward_2x2(
    dtype: int,
    dout: np.ndarray,
    indices: np.ndarray,
    norms: np.ndarray | None,
    x: np.ndarray | None,
    dx: np.ndarray,
    height: int,
    width: int,
    rows: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> bool: ...
