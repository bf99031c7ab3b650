"""The density of weights: the number of nonzero weights, divided by the number of all weights.

'auto' measures the density if skipping zeros may save more time than the measurement takes.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.sparse import zeros as _ext
from fastconv.checks import arrays as _arrays

#: 'auto' measures the density only for layers with at least this number of multiply-adds: `_ENOUGH` for layers with at
#: most `_FEW_WEIGHTS` weights, and `_MUCH` for layers with more weights. The measurement then takes less than a
#: hundredth of the time of the layer.
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
    """Return the density of `w`, rounded up to a multiple of 1 / `STEPS`; 1.0 if it is above `DENSE`.

    In arrays of more than 4,096 weights, only a sample is counted. `w` is C-contiguous, and of a dtype that the kernels
    support.
    """
    return _ext.density(_arrays.DTYPES[w.dtype], w, DENSE)


def as_seen(shape: tuple[int, ...], size: int, share: float) -> float:
    """Return the density that 'auto' assumes for weights of density `share`: 1.0 if 'auto' does not measure it."""
    return share if share <= DENSE and worth_a_look(shape, size) else 1.0
