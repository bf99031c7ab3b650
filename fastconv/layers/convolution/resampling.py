"""Upsampling by inserting zeros, and downsampling by dropping cells."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.arrays import prepare_inputs
from fastconv.checks.options import merge_options, per_axis
from fastconv.geometry.axis import data_shape


def resolve_call(
    caller: str, x: Any, factor: Any, unknown: dict[str, Any]
) -> tuple[np.ndarray, np.dtype, tuple[int, ...]]:
    if unknown:
        merge_options(caller, {"factor": factor}, unknown)
    if factor is None:
        raise TypeError(f"{caller}() needs factor, an int or one int per spatial axis")

    def resolve(x: np.ndarray) -> tuple[tuple[int, ...], None]:
        data_shape("x", x.shape)
        return per_axis("factor", factor, x.ndim - 2, 1), None

    factors, (x,), _ = prepare_inputs(resolve, convert=None, x=x)
    return x, _arrays.result_dtype(x), factors


def every(factors: tuple[int, ...]) -> Any:
    """Return the index that selects every `factor`-th cell along each spatial axis."""
    return (..., *(slice(None, None, factor) for factor in factors))


def upsample(x: Any, factor: int | Sequence[int] | None = None, **unknown: Any) -> np.ndarray:
    """Insert ``factor - 1`` zeros after every cell along each spatial axis.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    factor : int or sequence of int
        At least 1. One factor for all spatial axes, or one for each.

    Returns
    -------
    ndarray, (N, C, *spatial)
        Each spatial size is multiplied by its factor, because the last cell is also followed by zeros.

    Raises
    ------
    ValueError
        If a factor is below 1, `x` does not have 3 to 5 axes, or the result has
        more cells than can be addressed.
    TypeError
        If a factor is not an int. See also docs/conventions.md.

    See Also
    --------
    conv : the option `upsample` convolves the upsampled image without building it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import upsample
    >>> upsample(np.array([[[1.0, 2.0]]]), 3)
    array([[[1., 0., 0., 2., 0., 0.]]])
    """
    x, dtype, factors = resolve_call("upsample", x, factor, unknown)
    shape = (*x.shape[:2], *(n * f for n, f in zip(x.shape[2:], factors, strict=True)))
    elements = math.prod(n or 1 for n in shape)
    if elements * dtype.itemsize > sys.maxsize:
        what = "elements" if elements > sys.maxsize else f"bytes in {dtype}"
        raise ValueError(
            f"factor {factor!r} is too large for x {x.shape}: the result {shape} has more {what} than can be addressed"
        )
    out = _arrays.empty_result(shape, dtype, "the result")
    zero = np.broadcast_to(np.zeros((), dtype), shape)
    _arrays.assign_in_pieces(out, zero)
    _arrays.assign_in_pieces(out[every(factors)], x)
    return out


def downsample(x: Any, factor: int | Sequence[int] | None = None, **unknown: Any) -> np.ndarray:
    """Keep every `factor`-th cell along each spatial axis, beginning with the first.

    A convolution with stride s gives the same output as a convolution with stride 1, followed by downsampling by s.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    factor : int or sequence of int
        At least 1. One factor for all spatial axes, or one for each.

    Returns
    -------
    ndarray, (N, C, *spatial)
        Each spatial size is divided by its factor and rounded up. The result is never a view of `x`.

    Raises
    ------
    ValueError
        If a factor is below 1, or `x` does not have 3 to 5 axes.
    TypeError
        If a factor is not an int. See also docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import downsample
    >>> downsample(np.array([[[1.0, 2.0, 3.0, 4.0]]]), 3)
    array([[[1., 4.]]])
    """
    x, dtype, factors = resolve_call("downsample", x, factor, unknown)
    return np.array(x[every(factors)], dtype, order="C")
