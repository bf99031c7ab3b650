from collections.abc import Callable, Mapping

import numpy as np

# One compiled function per dtype, by its name in C.
totals: Mapping[str, Callable[..., None]]
highest: Mapping[str, Callable[..., None]]

def channels(
    dtype: int, x: np.ndarray, out: np.ndarray, images: int, isa: int, queue: np.ndarray | bytearray | None
) -> None: ...
