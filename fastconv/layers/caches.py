"""Checks of a cache before a backward pass reads it. They are necessary because the caller may have changed the cache.

`fastconv.checks.arrays.check_cached` checks most arrays. Only the type of a geometry is checked, because the
constructor of a geometry checks its fields.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from fastconv.checks import arrays as _arrays

_Geometry = TypeVar("_Geometry")

_FLOAT32, _FLOAT64 = _arrays.DTYPES
_ndarray = np.ndarray


def checked_geometry(source: str, geometry: Any, *kinds: type[_Geometry]) -> _Geometry:
    """Return the geometry in a cache, or raise an error if its type is not one of `kinds`."""
    if type(geometry) in kinds:
        return geometry
    names = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"geometry in cache must be a {names}, as {source} stored it, got a {type(geometry).__name__}")


def checked_dtype(source: str, dtype: Any) -> np.dtype:
    """Return the dtype in a cache, or raise an error if it is neither float32 nor float64."""
    if isinstance(dtype, np.dtype) and dtype in _arrays.DTYPES:
        return dtype
    raise ValueError(f"dtype in cache must be float32 or float64, as {source} stored it, got {dtype!r}")


def shape_of(source: str, name: str, array: Any, least: int, most: int) -> tuple[int, ...]:
    """Return the shape of an array in a cache.

    Raise an error if kernels cannot read the array, or if the array does not have `least` to `most` axes.
    """
    if _arrays.common_dtype_if_ready(array) is not None and least <= array.ndim <= most:
        return array.shape
    axes = f"{least}" if least == most else f"{least} to {most}"
    raise ValueError(
        f"cache holds {name} {_arrays.describe(array)}, but {source} stores a C-contiguous array of a float dtype with "
        f"{axes} axes; do not change the cache"
    )


def are_usual(x: Any, gamma: Any, mean: Any, scale: Any) -> bool:
    """Return whether these arrays have types and dtypes that the normalisation kernels can read.

    The numbers of elements are not checked here, because the kernels check them. More checks would take as long as the
    normalisation of a small image.
    """
    return (
        type(x) is type(gamma) is type(mean) is type(scale) is _ndarray
        and ((dtype := x.dtype) is _FLOAT32 or dtype is _FLOAT64)
        and gamma.dtype is dtype
        and mean.dtype is scale.dtype is _FLOAT64
        and mean.ndim > 0
        and x.ndim > 1
        and x.size > 0
    )


def check_moments(source: str, mean: Any, scale: Any, shape: tuple[int, ...]) -> None:
    """Raise an error unless both `mean` and `scale` in a cache have the given shape and dtype float64."""
    _arrays.check_cached(source, ("mean", "scale"), (mean, scale), (shape, shape), _FLOAT64)
