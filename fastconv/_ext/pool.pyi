from collections.abc import Callable, Mapping

import numpy as np

# One compiled function per dtype, by its name in C.
max_forward: Mapping[str, Callable[..., None]]
sum_forward: Mapping[str, Callable[..., None]]
sum_backward: Mapping[str, Callable[..., None]]

def max_backward(
    dtype: int, dout: np.ndarray, indices: np.ndarray, dx: np.ndarray, wide: bool, planes: int, words: np.ndarray
) -> bool: ...
def forward_rows(
    dtype: int,
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    table: np.ndarray,
    space: np.ndarray,
    slots: int,
    isa: int,
    words: np.ndarray,
) -> None: ...
def mean_backward_rows(
    dtype: int,
    dout: np.ndarray,
    dx: np.ndarray,
    table: np.ndarray,
    space: np.ndarray,
    slots: int,
    isa: int,
    words: np.ndarray,
) -> None: ...
def pairs_forward(
    dtype: int,
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    height: int,
    width: int,
    rows: int,
    isa: int,
    words: np.ndarray,
) -> None: ...
def pairs_backward(
    dtype: int,
    dout: np.ndarray,
    indices: np.ndarray,
    dx: np.ndarray,
    height: int,
    width: int,
    rows: int,
    isa: int,
    words: np.ndarray,
) -> bool: ...
