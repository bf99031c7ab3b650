import numpy as np

# Numbers of an axis in front of a table.
HEADER_SIZE: int

def weights(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    numbers: np.ndarray,
    queue: np.ndarray | bytearray,
) -> None: ...
def merge(
    cells: np.ndarray,
    order: np.ndarray,
    taps: np.ndarray,
    starts: np.ndarray,
    segments: np.ndarray,
    entries: np.ndarray,
    lists: np.ndarray,
    places: np.ndarray,
) -> tuple[int, int, int, int]: ...
def space_of(dtype: int, longest: int, most: int, cols: int) -> int: ...
def count(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    numbers: np.ndarray,
    share: int,
    longest: int,
    most: int,
    counts: np.ndarray,
    totals: np.ndarray,
    isa: int,
    space: np.ndarray,
    queue: np.ndarray | bytearray,
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
    queue: np.ndarray | bytearray,
) -> None: ...
def fill(
    table: np.ndarray,
    sizes: np.ndarray,
    w: np.ndarray,
    dtype: int,
    numbers: np.ndarray,
    share: int,
    longest: int,
    most: int,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    wide: bool,
    parts: int,
    isa: int,
    space: np.ndarray,
    queue: np.ndarray | bytearray,
) -> None: ...
