"""The functions of ``scipy.fft`` that `fft` needs.

The first transform imports ``scipy.fft``, because that import takes twice as long as NumPy's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


@functools.lru_cache(maxsize=4096)
def next_fast_len(target: int, *, real: bool) -> int:
    """As SciPy's for real transforms: the smallest length >= `target` whose only prime factors are 2, 3 and 5.

    It is written out here because every choice of an algorithm calls it, while few choices need SciPy for a transform.
    """
    assert real
    best = 1 << (target - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << (-(-target // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return best


def rfftn(x: np.ndarray, **options: Any) -> np.ndarray:
    """``scipy.fft.rfftn``."""
    from scipy import fft

    return fft.rfftn(x, **options)


def irfftn(x: np.ndarray, **options: Any) -> np.ndarray:
    """``scipy.fft.irfftn``."""
    from scipy import fft

    return fft.irfftn(x, **options)
