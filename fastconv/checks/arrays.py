"""Rules for dtypes, memory layouts, `out=` and workspaces of arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastconv.checks import copies as _copies
from fastconv.checks.messages import no_array
from fastconv.runtime import memory as _memory, threads as _threads
from fastconv.runtime.memory import check_bytes

_T = TypeVar("_T")

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
#: The dtypes of the kernels: their numbers, and their names in C.
DTYPES: dict[np.dtype, int] = {_FLOAT32: 0, _FLOAT64: 1}
NAMES = {_FLOAT32: "float", _FLOAT64: "double"}
#: Exceptions that NumPy and the conversion methods of other types raise about a value. Other exceptions, such as those
#: of a signal handler, are not about the value.
_UNREADABLE = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, BufferError)
#: Modules that define such exceptions. Subclasses from other modules may come from a signal handler.
_UNREADABLE_FROM = frozenset(("builtins", "numpy.exceptions"))


def as_array(name: str, value: Any, options: str = "") -> np.ndarray:
    """`value` as a plain ndarray of its own dtype, refused unless fastconv can compute with it.

    `options` says where options belong. It is for an argument such as a bias: callers who forget it pass their options
    in its place.
    """
    if type(value) is np.ndarray and value.dtype in DTYPES:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, as by {name}.filled(0)")
    # The output and cache of relu are two arrays of one shape, so NumPy would read the pair as a batch.
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
    """A plain view of an ndarray, because a subclass may report a false shape, strides or dtype."""
    return array if type(array) is np.ndarray else np.ndarray.view(array, np.ndarray)


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype.kind in "biu" or dtype.type in (np.float16, np.float32, np.float64):
        return
    raise TypeError(
        f"{name} has dtype {dtype}, which fastconv does not compute with; legal are float32 and float64 "
        "(float16, integers and bool are converted)"
    )


@functools.lru_cache(maxsize=256)
def _result_dtype(dtypes: tuple[np.dtype, ...]) -> np.dtype:
    dtype = np.result_type(*dtypes)
    if dtype.kind != "f":
        return _FLOAT64
    return _FLOAT64 if dtype.itemsize == 8 else _FLOAT32


def result_dtype(*arrays: np.ndarray | None) -> np.dtype:
    """The dtype of the result: `np.result_type`, then float64 for integers and float32 for float16."""
    return _result_dtype(tuple(a.dtype for a in arrays if a is not None))


def float_dtype(name: str, dtype: Any) -> np.dtype:
    """`dtype` as float32 or float64; otherwise an error that names `name`."""
    try:
        found = np.dtype(dtype if dtype is not None else "nothing")
    except TypeError as error:
        raise TypeError(f"{name} must be a dtype, got {dtype!r}") from error
    _check_dtype(name, found)
    return _result_dtype((found,))


def prepare(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """The array as C-contiguous, native, aligned and of `dtype`; itself if it already is.

    Otherwise a copy, made by `threads` threads; None is the default number.
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


#: Bytes that NumPy copies at a time, because Python runs signal handlers only between calls.
_CAST_BYTES = 1 << 26


def assign_in_pieces(target: np.ndarray, value: np.ndarray) -> None:
    """``target[...] = value`` of the same shape, some rows at a time, so that signal handlers can run
    during a long copy.
    """
    if target.nbytes <= _CAST_BYTES or not value.ndim:
        target[...] = value
        return
    step = _CAST_BYTES * len(target) // target.nbytes
    for begin in range(0, len(value), max(step, 1)):
        rows = slice(begin, begin + step) if step else begin
        assign_in_pieces(target[rows], value[rows])


def prepare_rows(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """As `prepare`, but only the last axis has to be contiguous: what the lowering kernels read."""
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
    """The common dtype of arrays if the kernels can read all of them without a copy, else None."""
    dtype = None
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        found = array.dtype
        if dtype is None:
            # An unpickled dtype equals the usual one, but is another object.
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
    """Refuse arrays of a cache that differ from those of `source`, because kernels rely on them.

    They must have `shapes`, be C-contiguous and aligned, and all have one float dtype, which is `dtype` if given.
    """
    found = common_dtype_if_ready(*arrays)
    if found is not None and (dtype is None or found == dtype) and tuple([a.shape for a in arrays]) == shapes:
        return
    held = " and ".join(f"{name} {describe(array)}" for name, array in zip(names, arrays, strict=True))
    raise ValueError(
        f"cache holds {held}, which {source} did not put there: its were {' and '.join(map(str, shapes))}, "
        f"C-contiguous and of {'one float dtype' if dtype is None else f'dtype {dtype}'}"
    )


def describe(value: Any) -> str:
    """A description of an array of a cache: its shape and dtype, or its type if that is not ndarray."""
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
    """Check and convert the arrays of a call: the only way from what callers pass to what kernels read.

    Parameters
    ----------
    resolve : callable
        Takes the arrays, in whatever dtype and layout, and checks their shapes, before anything is copied or
        allocated. Returns its result, and the option `threads`.
    hint : str
        Says where options belong, for callers who pass them in place of the last array.
    optional : str
        The name of the array that may be None; it comes last.
    dtype : dtype, optional
        Of the converted arrays; without it that of the result.
    convert : callable or None
        What converts an array: `prepare`, `prepare_rows`, or None to leave arrays in their dtype and layout.
    **given : array_like or None
        By the names of the arguments.

    Returns
    -------
    The result of `resolve`, the arrays as kernels read them, and the arrays as they were given.
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
    """`value`, of any shape, as a float array for the kernels, of its result dtype; itself if it already is."""
    if common_dtype_if_ready(value) is not None:
        return value
    return prepare_inputs(lambda _: (None, threads), **{name: value})[1][0]


def cast_gradient(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype, threads: int | None = None
) -> np.ndarray:
    """An upstream gradient in the dtype of the forward pass; its shape must be the output's."""
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
    """An uninitialised array for a result."""
    try:
        return _memory.empty(shape, dtype)
    except ValueError:  # too large to be addressed: the message names the result
        check_bytes(what, shape, dtype)
        raise
    except MemoryError:
        raise _memory.TooLargeError(
            f"{what} of shape {shape} and dtype {dtype} takes {math.prod(shape) * dtype.itemsize} bytes, more than the "
            "system gives"
        ) from None


def resolve_out(
    out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype, what: str, **inputs: np.ndarray | None
) -> np.ndarray:
    """An uninitialised array for a result, or a plain view of `out` if the result fits into it."""
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
    effort: Any = 100_000  # the exact answer can take exponential time; beyond this limit it counts as an overlap
    try:
        return np.shares_memory(a, b, max_work=effort)
    except np.exceptions.TooHardError:
        return True


def lift(array: np.ndarray, lead: int) -> np.ndarray:
    """A view with three spatial axes; unit axes are inserted after the first `lead` axes."""
    missing = 3 - (array.ndim - lead)
    return array[(slice(None),) * lead + (np.newaxis,) * missing] if missing else array
