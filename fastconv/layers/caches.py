"""Checks of the values that a backward pass reads from a cache, because the caller may have changed or replaced them.

`arrays.check_cached` checks arrays. A geometry checks its own fields when it is made.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from fastconv.checks import arrays as _arrays

_Geometry = TypeVar("_Geometry")

_FLOAT32, _FLOAT64 = _arrays.DTYPES
_ndarray = np.ndarray


def checked_geometry(source: str, geometry: Any, *kinds: type[_Geometry]) -> _Geometry:
    """Return the geometry of a cache. Any type that is not one of `kinds` raises an error.

    The constructors of `kinds` check the fields.
    """
    if type(geometry) in kinds:
        return geometry
    names = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"cache holds a {type(geometry).__name__} where {source} put a {names}")


def checked_dtype(source: str, dtype: Any) -> np.dtype:
    """Return the dtype of a cache. Any dtype but float32 and float64 raises an error."""
    if isinstance(dtype, np.dtype) and dtype in _arrays.DTYPES:
        return dtype
    raise ValueError(f"cache holds dtype {dtype!r}, which {source} did not put there; it is float32 or float64")


def shape_of(source: str, name: str, array: Any, least: int, most: int) -> tuple[int, ...]:
    """Return the shape of an array of a cache.

    An array that kernels cannot read, or that does not have `least` to `most` axes, raises an error.
    """
    if _arrays.common_dtype_if_ready(array) is not None and least <= array.ndim <= most:
        return array.shape
    axes = f"{least}" if least == most else f"{least} to {most}"
    raise ValueError(
        f"cache holds {name} {_arrays.describe(array)}, which {source} did not put there: its had {axes} axes and "
        "was C-contiguous and of a float dtype"
    )


def are_usual(x: Any, gamma: Any, mean: Any, scale: Any) -> bool:
    """Return whether the kernels of normalisation may read these arrays.

    The kernels check the numbers of elements. More checks here would take as long as normalising a small image.
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
    """Refuse moments of a normalisation that do not have `shape` and float64, because a cast would lose digits."""
    _arrays.check_cached(source, ("mean", "scale"), (mean, scale), (shape, shape), _FLOAT64)
