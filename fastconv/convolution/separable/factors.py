"""Computes the factors of kernels that are outer products."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv._ext.separable import separable as _ext
from fastconv.checks import arrays as _arrays
from fastconv.geometry.conv import ConvGeometry

#: The argument `order` of calls that only check kernels, without computing factors.
_NONE = np.empty(0, np.intp)


def lifted_kernel(geometry: ConvGeometry) -> tuple[int, int, int]:
    """Return the sizes of the kernel along three axes, for example (1, 5, 7) for a 5 x 7 kernel."""
    d, h, w = (*(1,) * (3 - geometry.rank), *geometry.kernel)
    return d, h, w


def is_rank_one(w: np.ndarray, geometry: ConvGeometry) -> bool:
    """Return whether the kernels of all filters are outer products, apart from rounding errors."""
    none = np.empty((len(w), 0), w.dtype)
    return _ext.factors(w, none, dtype=_arrays.DTYPES[w.dtype], kernel=lifted_kernel(geometry), order=_NONE) is None


def factors_of(w: np.ndarray, kernel: tuple[int, int, int], order: np.ndarray) -> np.ndarray:
    """Return an array of shape (filters, len(order)). Row i has the factors of filter i, arranged as `order` says.

    Raises ValueError if some kernel is not an outer product.
    """
    factors, dtype = np.empty((len(w), len(order)), w.dtype), _arrays.DTYPES[w.dtype]
    if _ext.factors(w, factors, dtype=dtype, kernel=kernel, order=order) is not None:
        found: Any = _ext.factors(w, factors, dtype=dtype, kernel=kernel, order=order, report_mismatch=True)
        raise ValueError(_reason(w, found))
    return factors


def _reason(w: np.ndarray, found: tuple) -> str:
    """Return a message that names the first kernel that is not an outer product, and its error. `found` is the result
    of the compiled function `factors` with `report_mismatch`.
    """
    if len(found) == 1:
        return f"algorithm 'separable' needs kernels of rank one, but the kernel of filter {found[0]} has an inf or NaN"
    filter_, place, value, product = found
    at = tuple(int(i) for i in np.unravel_index(place, w.shape[2:]))
    most = np.abs(w[filter_]).max()
    return (
        f"algorithm 'separable' needs kernels of rank one, but the kernel of filter {filter_} has another rank: its "
        f"weight at {at} is {value:.9g}, and the product of its factors is {product:.9g}; the difference is "
        f"{abs(value - product) / most:.1e} of the largest weight"
    )
