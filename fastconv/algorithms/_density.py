"""How many weights are not zero: 'auto' looks before it computes, where skipping zeros may save more than the look."""

from __future__ import annotations

import math

import numpy as np

from fastconv import _arrays
from fastconv._ext import zeros as _ext

#: Multiply-adds that are worth a look, which takes less than a hundredth of their time: of few weights, and of more.
_ENOUGH, _MUCH = 1 << 22, 1 << 23
_FEW_WEIGHTS = 1 << 10
#: A larger share of weights that are not zero counts as all of them.
DENSE = 0.7
#: A share is a multiple of one in so many, so that there are not many different ones to choose an algorithm for.
STEPS: int = _ext.steps


def worth_a_look(shape: tuple[int, ...], size: int) -> bool:
    """Whether to look for zeros among weights of a shape; `size` is that of the output, or of its gradient."""
    return size * math.prod(shape[1:]) >= (_ENOUGH if math.prod(shape) <= _FEW_WEIGHTS else _MUCH)


def density(w: np.ndarray) -> float:
    """The share of the weights that are not zero, rounded up to a multiple of 1 / `STEPS`; 1.0 where few are zero.

    Up to 4,096 weights are all counted. Of more it is the share of a sample. `w` is contiguous, and of a dtype that
    kernels compute in.
    """
    return _ext.density(_arrays.DTYPES[w.dtype], w, DENSE)


def as_seen(shape: tuple[int, ...], size: int, share: float) -> float:
    """What `density` says of weights of which a `share` is not zero; 1.0 where nobody looks."""
    return share if share <= DENSE and worth_a_look(shape, size) else 1.0
