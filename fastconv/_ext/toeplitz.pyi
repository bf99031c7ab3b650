import numpy as np

SLACK: int

def count(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    counts: np.ndarray,
    space: np.ndarray,
    isa: int,
    words: np.ndarray | bytearray,
) -> None: ...
def place(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    counts: np.ndarray,
    starts: np.ndarray,
    indptr: np.ndarray,
    wide: bool,
    isa: int,
    space: np.ndarray,
    words: np.ndarray | bytearray,
) -> None: ...
def fill(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    wide: bool,
    pieces: int,
    isa: int,
    space: np.ndarray,
    words: np.ndarray | bytearray,
) -> None: ...
def product(
    dtype: int,
    wide: bool,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    width: int,
    x_pitch: int,
    y_pitch: int,
    isa: int,
    words: np.ndarray | bytearray,
) -> None: ...
def gradient(
    table: np.ndarray,
    sizes: np.ndarray,
    numbers: np.ndarray,
    dtype: int,
    x: np.ndarray,
    dy: np.ndarray,
    dw: np.ndarray,
    width: int,
    block: int,
    isa: int,
    space: np.ndarray,
    words: np.ndarray | bytearray,
) -> None: ...
def gradient_space(slots: int) -> int: ...
