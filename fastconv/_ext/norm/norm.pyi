from typing import Any

import numpy as np

COLUMNS: int

def has_negative(numbers: np.ndarray) -> bool: ...
def batch_forward(
    dtype: int,
    x: np.ndarray,
    y: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    scale: np.ndarray,
    sizes: Any,
    eps: float,
    train: bool,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def batch_backward(
    dtype: int,
    dout: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    gamma: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    sums: np.ndarray,
    sizes: Any,
    train: bool,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def group_forward(
    dtype: int,
    x: np.ndarray,
    y: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    sizes: Any,
    eps: float,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def group_backward(
    dtype: int,
    dout: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    gamma: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    sums: np.ndarray,
    sizes: Any,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def group_sums(
    dtype: int,
    dout: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    sums: np.ndarray,
    sizes: Any,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
