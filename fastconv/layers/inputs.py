"""Checks and converts the arrays of every layer: as given, then checked, then as kernels read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastconv.checks import arrays as _arrays
from fastconv.runtime import threads as _threads

_T = TypeVar("_T")


def prepare_inputs(
    resolve: Callable[..., tuple[_T, int | None]], hint: str = "", **given: Any
) -> tuple[_T, list[Any], list[Any]]:
    """What `resolve` returns, the arrays in one dtype as kernels read them, and the same as they were given.

    Parameters
    ----------
    resolve : callable
        Takes the arrays, in whatever dtype and layout, and checks their shapes, before anything is copied or
        allocated. Returns what it finds, and the option `threads`.
    hint : str
        Where options belong, for callers who give them in place of the last array.
    **given : array_like or None
        By the names of the arguments. A bias `b` may be None, and comes last.
    """
    values = list(given.values())
    without = "b" in given and values[-1] is None
    dtype = _arrays.common_dtype_if_ready(*(values[:-1] if without else values))
    if dtype is not None:
        return resolve(*values)[0], values, values
    arrays: list[Any] = []
    for name, value in given.items():
        last = len(arrays) == len(values) - 1
        arrays.append(None if without and last else _arrays.as_array(name, value, hint if last else ""))
    found, threads = resolve(*arrays)
    dtype, workers = _arrays.result_dtype(*arrays), _threads.resolve(threads)
    return found, [None if array is None else _arrays.prepare(array, dtype, workers) for array in arrays], arrays
