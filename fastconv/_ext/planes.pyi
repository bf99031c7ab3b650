from collections.abc import Callable, Mapping

import numpy as np

def rectify(
    dtype: int, sign: np.ndarray, source: np.ndarray, to: np.ndarray, gradient: bool, isa: int, words: np.ndarray
) -> None: ...

# One compiled function per dtype, by its name in C.
totals: Mapping[str, Callable[..., None]]
highest: Mapping[str, Callable[..., None]]
