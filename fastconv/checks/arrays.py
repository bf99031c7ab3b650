"""Checks of the dtype and memory layout of arrays, of `out=` arguments, and of arrays in caches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastconv.checks import copies as _copies
from fastconv.checks.dtypes import DTYPES as DTYPES
from fastconv.checks.messages import no_array
from fastconv.runtime import memory as _memory, threads as _threads
from fastconv.runtime.memory import check_bytes

_T = TypeVar("_T")

_FLOAT32, _FLOAT64 = DTYPES
#: Exceptions by which NumPy and the conversion methods of other types report an unsuitable value. All other exceptions,
#: such as those that a signal handler raises, have another cause.
_UNREADABLE = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, BufferError)
#: The modules that define these exceptions. A subclass from another module may have been raised by a signal handler.
_UNREADABLE_FROM = frozenset(("builtins", "numpy.exceptions"))


def as_array(name: str, value: Any, options: str = "") -> np.ndarray:
    """Return `value` as a plain ndarray of its own dtype, or raise an error if fastconv cannot compute with it.

    `options` is a text that says how to pass options. Arguments such as a bias need it, because a caller who forgets
    the bias passes the options in its place.
    """
    if type(value) is np.ndarray and value.dtype in DTYPES:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, with {name}.filled(0)")
    # relu returns its output and its cache, two arrays of the same shape. NumPy would read this pair as a batch.
    if type(value) is tuple and len(value) == 2 and all(type(a) is np.ndarray and a.ndim > 1 for a in value):
        raise TypeError(no_array(name, value))
    try:
        array = np.asarray(value)
    except _UNREADABLE as error:
        if type(error).__module__ not in _UNREADABLE_FROM:
            raise
        if reason := no_array(name, value, options):
            raise TypeError(reason) from None
        kind = ValueError if type(error) is ValueError else TypeError
        raise kind(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "biuf" and (reason := no_array(name, value, options)):
        raise TypeError(reason)
    _check_dtype(name, array.dtype)
    return array


def plain(array: np.ndarray) -> np.ndarray:
    """Return a plain view of an ndarray, because a subclass may report a false shape, strides or dtype."""
    return array if type(array) is np.ndarray else np.ndarray.view(array, np.ndarray)


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype.kind in "biu" or dtype.type in (np.float16, np.float32, np.float64):
        return
    raise TypeError(
        f"{name} has dtype {dtype}, which fastconv does not support; legal are float32 and float64 "
        "(float16, integers and bool are converted)"
    )


@functools.lru_cache(maxsize=256)
def _result_dtype(dtypes: tuple[np.dtype, ...]) -> np.dtype:
    dtype = np.result_type(*dtypes)
    if dtype.kind != "f":
        return _FLOAT64
    return _FLOAT64 if dtype.itemsize == 8 else _FLOAT32


def result_dtype(*arrays: np.ndarray | None) -> np.dtype:
    """Return `np.result_type` of the arrays, but float64 instead of integers and float32 instead of float16."""
    return _result_dtype(tuple(a.dtype for a in arrays if a is not None))


def float_dtype(name: str, dtype: Any) -> np.dtype:
    """Return `dtype` if it is float32 or float64, and raise an error that contains `name` otherwise."""
    try:
        found = np.dtype(dtype if dtype is not None else "nothing")
    except TypeError as error:
        raise TypeError(f"{name} must be a dtype, got {dtype!r}") from error
    _check_dtype(name, found)
    return _result_dtype((found,))


def prepare(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """Return the array itself if it is C-contiguous, aligned, in native byte order and of `dtype`. Otherwise return a
    copy that is.

    `threads` threads make the copy; None means the default number.
    """
    flags = array.flags
    if array.dtype == dtype and array.dtype.isnative:
        if flags.c_contiguous and flags.aligned:
            return array
        return _copies.contiguous(array, threads)
    if array.size * dtype.itemsize <= _CAST_BYTES:
        return np.array(array, dtype=dtype, order="C")
    cast = _memory.empty(array.shape, dtype)
    assign_in_pieces(cast, array)
    return cast


#: The largest number of bytes that NumPy copies in one call, because Python runs signal handlers only between calls.
_CAST_BYTES = 1 << 26


def assign_in_pieces(target: np.ndarray, value: np.ndarray) -> None:
    """Do ``target[...] = value`` for arrays of the same shape. A long copy is divided into several, so that signal
    handlers can run in between.
    """
    if target.nbytes <= _CAST_BYTES or not value.ndim:
        target[...] = value
        return
    step = _CAST_BYTES * len(target) // target.nbytes
    for begin in range(0, len(value), max(step, 1)):
        rows = slice(begin, begin + step) if step else begin
        assign_in_pieces(target[rows], value[rows])


def prepare_rows(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """Do what `prepare` does, but require only the last axis to be contiguous. This suffices for lowering kernels."""
    if (
        array.dtype == dtype
        and array.dtype.isnative
        and array.flags.aligned
        and array.size
        and array.strides[-1] == array.itemsize
    ):
        return array
    return prepare(array, dtype, threads)


def common_dtype_if_ready(*arrays: Any) -> np.dtype | None:
    """Return the common dtype of the arrays if the kernels can read all of them without a copy, else None."""
    dtype = None
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        found = array.dtype
        if dtype is None:
            # Compare by value, too, because an unpickled dtype is another object than the usual dtype.
            if found is not _FLOAT32 and found is not _FLOAT64 and found not in DTYPES:
                return None
            dtype = found
        flags = array.flags
        if (found is not dtype and found != dtype) or not flags.c_contiguous or not flags.aligned:
            return None
    return dtype


def check_cached(
    source: str,
    names: tuple[str, ...],
    arrays: tuple[Any, ...],
    shapes: tuple[tuple[int, ...], ...],
    dtype: np.dtype | None = None,
) -> None:
    """Raise an error if the arrays of a cache have changed since `source` made them. Kernels do not check them again.

    The arrays must have the given `shapes`, and be C-contiguous and aligned. All must have the same float dtype. If
    `dtype` is given, it must be this dtype.
    """
    found = common_dtype_if_ready(*arrays)
    if found is not None and (dtype is None or found == dtype) and tuple([a.shape for a in arrays]) == shapes:
        return
    held = " and ".join(f"{name} {describe(array)}" for name, array in zip(names, arrays, strict=True))
    raise ValueError(
        f"cache holds {held}, which {source} did not put there; it stores {' and '.join(map(str, shapes))}, "
        f"C-contiguous and of {'one float dtype' if dtype is None else f'dtype {dtype}'}"
    )


def describe(value: Any) -> str:
    """Describe an array of a cache by its shape and dtype, or by its type if it is not an ndarray."""
    if not issubclass(type(value), np.ndarray):
        return f"of type {type(value).__name__}"
    array = plain(value)
    kind = "" if type(value) is np.ndarray else f" and type {type(value).__name__}"
    return f"{array.shape} of dtype {array.dtype}{kind}"


def prepare_inputs(
    resolve: Callable[..., tuple[_T, int | None]],
    hint: str = "",
    *,
    optional: str = "b",
    dtype: np.dtype | None = None,
    convert: Callable[[np.ndarray, np.dtype, int | None], np.ndarray] | None = prepare,
    **given: Any,
) -> tuple[_T, list[Any], list[Any]]:
    """Check the arrays of a call, and convert them to arrays that kernels can read. All layers use this function.

    Parameters
    ----------
    resolve : callable
        Takes the arrays in their original dtypes and layouts, and checks their shapes before anything is copied or
        allocated. Returns a tuple of its result and the option `threads`.
    hint : str
        How to pass options, for the message to a caller who passes an option in place of the last array.
    optional : str
        The name of the last array, if it may be None.
    dtype : dtype, optional
        The dtype of the converted arrays. By default it is the dtype of the result.
    convert : callable or None
        Converts an array: `prepare`, `prepare_rows`, or None to leave arrays in their dtype and layout.
    **given : array_like or None
        The arguments, by their names.

    Returns
    -------
    The result of `resolve`, the converted arrays, and the arrays before conversion.
    """
    values = list(given.values())
    without = values[-1] is None and optional in given
    ready = common_dtype_if_ready(*(values[:-1] if without else values))
    if ready is not None and (dtype is None or ready == dtype):
        return resolve(*values)[0], values, values
    arrays: list[Any] = []
    for name, value in given.items():
        last = len(arrays) == len(values) - 1
        arrays.append(None if without and last else as_array(name, value, hint if last else ""))
    found, threads = resolve(*arrays)
    if convert is None:
        return found, arrays, arrays
    if dtype is None:
        dtype = result_dtype(*arrays)
    workers = _threads.resolve(threads)
    return found, [None if array is None else convert(array, dtype, workers) for array in arrays], arrays


def as_float_array(name: str, value: Any, threads: int | None = None) -> np.ndarray:
    """Return `value` as an array that kernels can read, in float32 or float64. It is copied only if necessary."""
    if common_dtype_if_ready(value) is not None:
        return value
    return prepare_inputs(lambda _: (None, threads), **{name: value})[1][0]


def cast_gradient(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype, threads: int | None = None
) -> np.ndarray:
    """Return an upstream gradient in the dtype of the forward pass. It must have the shape of the output, `shape`."""
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value

    def check(array: np.ndarray) -> tuple[None, int | None]:
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, but the output of the forward pass has shape {shape}")
        return None, threads

    return prepare_inputs(check, dtype=dtype, **{name: value})[1][0]


def empty_result(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Return an uninitialised array for a result."""
    try:
        return _memory.empty(shape, dtype)
    except ValueError:  # The array is too large to be addressed; the message names the result.
        check_bytes(what, shape, dtype)
        raise
    except MemoryError:
        raise _memory.TooLargeError(
            f"{what} of shape {shape} and dtype {dtype} takes {math.prod(shape) * dtype.itemsize} bytes, more than the "
            "system can allocate"
        ) from None


def resolve_out(
    out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype, what: str, **inputs: np.ndarray | None
) -> np.ndarray:
    """Return a plain view of `out`, or an uninitialised array if `out` is None.

    Raises an error if `out` does not fit the result, or overlaps one of `inputs` in memory.
    """
    if out is None:
        return empty_result(shape, dtype, what)
    if not issubclass(type(out), np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    out = plain(out)
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, but the result has shape {shape}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise ValueError(f"out has dtype {out.dtype.str}, but the result has dtype {dtype.str} ({dtype})")
    if not out.flags.c_contiguous or not out.flags.aligned:
        raise ValueError(f"out must be C-contiguous and aligned, got strides {out.strides} for shape {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; it must be writable")
    for name, array in inputs.items():
        if array is not None and _overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; give it memory of its own")
    return out


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    # The exact answer can take exponential time. If the search reaches this limit, the arrays count as overlapping.
    effort: Any = 100_000
    try:
        return np.shares_memory(a, b, max_work=effort)
    except np.exceptions.TooHardError:
        return True


def lift(array: np.ndarray, lead: int) -> np.ndarray:
    """Return a view with three spatial axes; unit axes are inserted after the first `lead` axes."""
    missing = 3 - (array.ndim - lead)
    return array[(slice(None),) * lead + (np.newaxis,) * missing] if missing else array
