"""The density of weights, which is the share of nonzero ones.

'auto' measures the density if skipping zeros may save more time than the measurement takes.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext import zeros as _ext
from fastconv.checks import arrays as _arrays

#: For at least this number of multiply-adds, measuring the density takes less than a hundredth of their time: `_ENOUGH`
#: multiply-adds for at most `_FEW_WEIGHTS` weights, and `_MUCH` for more weights.
_ENOUGH, _MUCH = 1 << 22, 1 << 23
_FEW_WEIGHTS = 1 << 10
#: A density above this counts as 1.
DENSE = 0.7
#: Densities are rounded up to multiples of 1 / STEPS, so that algorithms are chosen for few different densities.
STEPS: int = _ext.steps


def worth_a_look(shape: tuple[int, ...], size: int) -> bool:
    """Return whether to measure the density of weights. `size` is the number of elements of the output."""
    return size * math.prod(shape[1:]) >= (_ENOUGH if math.prod(shape) <= _FEW_WEIGHTS else _MUCH)


def density(w: np.ndarray) -> float:
    """Return the share of nonzero weights, rounded up to a multiple of 1 / `STEPS`; 1.0 if few are zero.

    Arrays of up to 4,096 weights are counted completely, and for larger arrays the share in a sample is returned. `w`
    is C-contiguous, and of a dtype that the kernels support.
    """
    return _ext.density(_arrays.DTYPES[w.dtype], w, DENSE)


def as_seen(shape: tuple[int, ...], size: int, share: float) -> float:
    """Return the density that 'auto' assumes for weights with a `share` of nonzeros; 1.0 if it is not measured."""
    return share if share <= DENSE and worth_a_look(shape, size) else 1.0
