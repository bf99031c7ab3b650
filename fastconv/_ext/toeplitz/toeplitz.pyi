from collections.abc import Sequence
from typing import Any

import numpy as np

class MatrixPattern:
    nbytes: int
    def __init__(
        self,
        *,
        axes: Sequence[Any],
        axis_arrays: Sequence[tuple[np.ndarray, ...]],
        groups: int,
        rows: int,
        cols: int,
        group_step: int,
        row_step: int,
        col_step: int,
        pitch_d: int,
        pitch_h: int,
        taps: int,
    ) -> None: ...

def weights(
    pattern: MatrixPattern,
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
    pattern: MatrixPattern,
    w: np.ndarray,
    dtype: int,
    numbers: np.ndarray,
    share: int,
    longest: int,
    most: int,
    counts: np.ndarray,
    totals: np.ndarray,
    space: np.ndarray,
    queue: np.ndarray | bytearray,
) -> None: ...
def place(
    pattern: MatrixPattern,
    w: np.ndarray,
    dtype: int,
    counts: np.ndarray,
    starts: np.ndarray,
    indptr: np.ndarray,
    wide: bool,
    queue: np.ndarray | bytearray,
) -> None: ...
def fill(
    pattern: MatrixPattern,
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
    space: np.ndarray,
    queue: np.ndarray | bytearray,
) -> None: ...
