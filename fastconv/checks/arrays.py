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
#: The exceptions that `np.asarray` raises for a value that it cannot convert. All other exceptions have another cause,
#: for example a signal handler, and are passed on.
_UNREADABLE = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, BufferError)
#: The modules that define the exceptions of `np.asarray`. An exception of a class from another module is passed on,
#: because a signal handler may have raised it.
_UNREADABLE_FROM = frozenset(("builtins", "numpy.exceptions"))


def as_array(name: str, value: Any, options: str = "") -> np.ndarray:
    """Return `value` as a plain ndarray without changing its dtype. Raise an error if it is not an array, or has an
    unsupported dtype.

    If `value` is a dict, the error message ends with the text `options`, which says how to pass options. Callers who
    forget the bias pass the dict of options in place of the bias.
    """
    if type(value) is np.ndarray and value.dtype in DTYPES:
        return value
    array = _read(name, value, options)
    if array.dtype.kind not in "biuf" and (reason := no_array(name, value, options)):
        raise TypeError(reason)
    _check_dtype(name, array.dtype)
    return array


def _read(name: str, value: Any, options: str = "") -> np.ndarray:
    """Return `value` as an array of any dtype."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, with {name}.filled(0)")
    # Refuse a pair of arrays, because it is probably the output and the cache that `relu_forward` returns. NumPy would
    # convert the pair to one array, a batch of two images.
    if type(value) is tuple and len(value) == 2 and all(type(a) is np.ndarray and a.ndim > 1 for a in value):
        raise TypeError(no_array(name, value))
    try:
        return np.asarray(value)
    except _UNREADABLE as error:
        if type(error).__module__ not in _UNREADABLE_FROM:
            raise
        if reason := no_array(name, value, options):
            raise TypeError(reason) from None
        kind = ValueError if type(error) is ValueError else TypeError
        raise kind(f"{name} cannot be read as an array: {error}") from error


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


# Cached, because `np.result_type` takes 2.7 us for three dtypes, and a lookup in this cache takes 0.4 us.
@functools.lru_cache(maxsize=256)
def _result_dtype(dtypes: tuple[np.dtype, ...]) -> np.dtype:
    dtype = np.result_type(*dtypes)
    if dtype.kind != "f":
        return _FLOAT64
    return _FLOAT64 if dtype.itemsize == 8 else _FLOAT32


def result_dtype(*arrays: np.ndarray | None) -> np.dtype:
    """Return `np.result_type` of the arrays, but float64 instead of integers and float32 instead of float16."""
    return _result_dtype(tuple([a.dtype for a in arrays if a is not None]))


def float_dtype(name: str, dtype: Any) -> np.dtype:
    """Return the float dtype in which fastconv computes for arrays of the given `dtype`. Raise an error if fastconv
    does not support `dtype`. The message starts with `name`.
    """
    try:
        found = np.dtype(dtype if dtype is not None else "nothing")
    except TypeError as error:
        raise TypeError(f"{name} must be a dtype, got {dtype!r}") from error
    _check_dtype(name, found)
    return _result_dtype((found,))


def prepare(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """Return `array` itself if kernels can read it. Otherwise return a copy that they can read. Kernels read arrays
    that are C-contiguous, aligned, in native byte order and of the given dtype.

    `threads` is the number of threads that make the copy; None means the default.
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


#: The largest number of bytes that one call of NumPy copies. Longer copies take several calls, because Python runs
#: signal handlers only between calls.
_CAST_BYTES = 1 << 26


def assign_in_pieces(target: np.ndarray, value: np.ndarray) -> None:
    """Do ``target[...] = value`` for arrays of the same shape. Divide a large copy into several calls of NumPy, because
    Python runs signal handlers only between calls.
    """
    if target.nbytes <= _CAST_BYTES or not value.ndim:
        target[...] = value
        return
    step = _CAST_BYTES * len(target) // target.nbytes
    for begin in range(0, len(value), max(step, 1)):
        rows = slice(begin, begin + step) if step else begin
        assign_in_pieces(target[rows], value[rows])


def prepare_rows(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """Do the same as `prepare` for the kernels of `im2col` and `col2im`. They need contiguous elements along the last
    axis only, so fewer arrays are copied.
    """
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
    """Return the common dtype of the arrays if kernels can read all of them without a copy, and None otherwise."""
    dtype = None
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        found = array.dtype
        if dtype is None:
            # Compare with == as well as with `is`, because unpickling makes a new dtype object that equals `_FLOAT32`.
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
    """Raise an error if the forward function `source` cannot have stored these arrays in a cache. Without this check,
    kernels could read outside of the arrays.

    The arrays must have the given `shapes`, be C-contiguous and aligned, and all have the same float dtype. If `dtype`
    is given, the arrays must have this dtype.
    """
    found = common_dtype_if_ready(*arrays)
    if found is not None and (dtype is None or found == dtype) and tuple([a.shape for a in arrays]) == shapes:
        return
    held = " and ".join(f"{name} {describe(array)}" for name, array in zip(names, arrays, strict=True))
    raise ValueError(
        f"cache holds {held}, which {source} did not put there; the arrays must have shapes "
        f"{' and '.join(map(str, shapes))}, be C-contiguous, and have "
        f"{'one float dtype' if dtype is None else f'dtype {dtype}'}"
    )


def describe(value: Any) -> str:
    """Describe a value in a cache: by its shape and dtype if it is an ndarray, and by its type otherwise."""
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
    integer: str = "",
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
        A text that says how to pass options. The error message shows it if the last array is a dict.
    optional : str
        The name of the last array, if it may be None.
    integer : str
        The name of the last array, if it holds indices or labels. It is not converted. `resolve` checks its dtype.
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
    with_integer = integer in given
    ready = common_dtype_if_ready(*(values[:-1] if without or with_integer else values))
    if ready is not None and (dtype is None or ready == dtype):
        if with_integer:
            values[-1] = _read(integer, values[-1])
        return resolve(*values)[0], values, values
    arrays: list[Any] = []
    for name, value in given.items():
        last = len(arrays) == len(values) - 1
        if name == integer:
            arrays.append(_read(name, value))
        else:
            arrays.append(None if without and last else as_array(name, value, hint if last else ""))
    found, threads = resolve(*arrays)
    if convert is None:
        return found, arrays, arrays
    floats = arrays[:-1] if with_integer else arrays
    if dtype is None:
        dtype = result_dtype(*floats)
    workers = _threads.resolve(threads)
    prepared = [None if array is None else convert(array, dtype, workers) for array in floats]
    return found, prepared + arrays[len(floats) :], arrays


def as_float_array(name: str, value: Any, threads: int | None = None) -> np.ndarray:
    """Return `value` as a float32 or float64 array that kernels can read. Copy it only if necessary."""
    if common_dtype_if_ready(value) is not None:
        return value
    return prepare_inputs(lambda _: (None, threads), **{name: value})[1][0]


def cast_gradient(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype, threads: int | None = None
) -> np.ndarray:
    """Return the gradient `value` in `dtype`, the dtype of the forward pass. Raise an error unless it has the shape of
    the output, `shape`.
    """
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value

    def check(array: np.ndarray) -> tuple[None, int | None]:
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, but the output of the forward pass has shape {shape}")
        return None, threads

    return prepare_inputs(check, dtype=dtype, **{name: value})[1][0]


def prepare_backward(name: str, cached: Any, dout: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the array from the cache, and `dout` in the same dtype. Raise an error unless both have the same shape.

    `name` is the name of the cached array in error messages.
    """
    if common_dtype_if_ready(cached) is not None:
        return cached, cast_gradient("dout", dout, cached.shape, cached.dtype)

    def resolve(array: np.ndarray) -> tuple[np.ndarray, None]:
        return cast_gradient("dout", dout, array.shape, result_dtype(array)), None

    dout, (cached,), _ = prepare_inputs(resolve, **{name: cached})
    return cached, dout


def empty_result(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Return an uninitialised array. In error messages, `what` is the name of the result."""
    try:
        return _memory.empty(shape, dtype)
    except ValueError:  # The array is larger than the address space. `check_bytes` raises an error that says so.
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
    """Return a plain view of `out`, or an uninitialised array if `out` is None."""
    return empty_result(shape, dtype, what) if out is None else check_out(out, shape, dtype, **inputs)


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, **inputs: np.ndarray | None) -> np.ndarray:
    """Return a plain view of the argument `out`. Raise an error if it cannot hold a result of this `shape` and `dtype`,
    or if it overlaps one of `inputs` in memory.
    """
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
    # `np.shares_memory` can take exponential time. If it needs more steps than this limit, assume that the arrays
    # overlap.
    effort: Any = 100_000
    try:
        return np.shares_memory(a, b, max_work=effort)
    except np.exceptions.TooHardError:
        return True


def lift(array: np.ndarray, lead: int) -> np.ndarray:
    """Return a view of `array` that has three spatial axes after the first `lead` axes. Insert axes of size 1 in front
    of the spatial axes that `array` has.
    """
    missing = 3 - (array.ndim - lead)
    return array[(slice(None),) * lead + (np.newaxis,) * missing] if missing else array
