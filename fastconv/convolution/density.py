"""The density of weights: the number of nonzero weights, divided by the number of all weights.

'auto' measures the density if skipping zeros may save more time than the measurement takes.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.sparse import zeros as _ext
from fastconv.checks import arrays as _arrays

#: 'auto' measures the density only for layers of at least this number of multiply-adds, because the measurement then
#: takes less than 2 % of the time of the layer.
_ENOUGH = 1 << 22
#: A density above this is treated as 1.
DENSE = 0.7
#: Densities are rounded up to multiples of 1 / STEPS, so that 'auto' makes only a few plans.
STEPS: int = _ext.steps


def worth_a_look(shape: tuple[int, ...], size: int) -> bool:
    """Return whether to measure the density of weights of shape `shape`. The output has `size` elements."""
    return size * math.prod(shape[1:]) >= _ENOUGH


def density(w: np.ndarray) -> float:
    """Return the density of `w`, rounded up to a multiple of 1 / `STEPS`. A density above `DENSE` gives 1.0.

    If `w` has more than 4,096 weights, only a sample is counted. `w` is C-contiguous, and float32 or float64.
    """
    return _ext.density(w, dtype=_arrays.DTYPES[w.dtype], dense=DENSE)


def as_seen(shape: tuple[int, ...], size: int, share: float) -> float:
    """Return the density that 'auto' assumes for weights whose density is `share`. If 'auto' does not measure the
    density, it assumes 1.0.
    """
    return share if share <= DENSE and worth_a_look(shape, size) else 1.0
