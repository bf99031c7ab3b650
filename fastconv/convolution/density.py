"""The density of weights. 'auto' looks at it if skipping zeros may save more time than the look takes."""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext import zeros as _ext
from fastconv.checks import arrays as _arrays

#: With so many multiply-adds a look takes less than a hundredth of their time: for few weights, and for more.
_ENOUGH, _MUCH = 1 << 22, 1 << 23
_FEW_WEIGHTS = 1 << 10
#: A larger share of nonzero weights counts as 1.
DENSE = 0.7
#: A density is a multiple of 1 / STEPS, so that algorithms are chosen for few different ones.
STEPS: int = _ext.steps


def worth_a_look(shape: tuple[int, ...], size: int) -> bool:
    """Whether to look for zeros among weights of a shape; `size` is that of the output, or of its gradient."""
    return size * math.prod(shape[1:]) >= (_ENOUGH if math.prod(shape) <= _FEW_WEIGHTS else _MUCH)


def density(w: np.ndarray) -> float:
    """The share of nonzero weights, rounded up to a multiple of 1 / `STEPS`; 1.0 if few are zero.

    Up to 4,096 weights are counted completely; of more it is the share in a sample. `w` is contiguous, and of a
    dtype that kernels compute in.
    """
    return _ext.density(_arrays.DTYPES[w.dtype], w, DENSE)


def as_seen(shape: tuple[int, ...], size: int, share: float) -> float:
    """The density that 'auto' sees for weights with a `share` of nonzeros; 1.0 if it does not look."""
    return share if share <= DENSE and worth_a_look(shape, size) else 1.0
