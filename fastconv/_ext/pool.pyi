from collections.abc import Callable, Mapping

import numpy as np

# One compiled function per dtype, by its name in C.
max_forward: Mapping[str, Callable[..., None]]
sum_forward: Mapping[str, Callable[..., None]]
sum_backward: Mapping[str, Callable[..., None]]

def max_backward(
    dtype: int,
    dout: np.ndarray,
    indices: np.ndarray,
    dx: np.ndarray,
    wide: bool,
    planes: int,
    words: np.ndarray | bytearray,
) -> bool: ...
