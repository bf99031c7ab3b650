"""Everything that looks at a dtype, at strides or at memory: one rule each."""

from __future__ import annotations

import functools
import math
import sys
import threading
from typing import Any

import numpy as np

from fastconv import _copies, _memory

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
#: What the kernels compute in: by its number for those that take any, and by its name in C for those of one.
DTYPES: dict[np.dtype, int] = {_FLOAT32: 0, _FLOAT64: 1}
NAMES = {_FLOAT32: "float", _FLOAT64: "double"}


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as a plain ndarray of its own dtype, refused unless fastconv can compute with it."""
    if type(value) is np.ndarray and value.dtype in DTYPES:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, as by {name}.filled(0)")
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:
        kind = ValueError if type(error) is ValueError else TypeError
        raise kind(f"{name} cannot be read as an array: {error}") from error
    _check_dtype(name, array.dtype)
    return array


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
    """The dtype all of them are computed in: `np.result_type`, then integers to float64, float16 to float32."""
    return _result_dtype(tuple(a.dtype for a in arrays if a is not None))


def float_dtype(name: str, dtype: Any) -> np.dtype:
    """`dtype` as float32 or float64, else an error naming `name`."""
    try:
        found = np.dtype(dtype if dtype is not None else "nothing")
    except TypeError as error:
        raise TypeError(f"{name} must be a dtype, got {dtype!r}") from error
    _check_dtype(name, found)
    return _result_dtype((found,))


def prepare(array: np.ndarray, dtype: np.dtype, threads: int | None = None) -> np.ndarray:
    """C-contiguous, native, aligned and of `dtype`: the array itself where it already is.

    Else a copy, by `threads`; None stands for the default of calls.
    """
    flags = array.flags
    if array.dtype == dtype and array.dtype.isnative:
        if flags.c_contiguous and flags.aligned:
            return array
        return _copies.contiguous(array, threads)
    return np.array(array, dtype=dtype, order="C")


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


def ready(*arrays: Any) -> np.dtype | None:
    """The dtype of arrays that the kernels can read as they are, None unless all are such."""
    dtype = None
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        found = array.dtype
        if dtype is None:
            # One that was unpickled is equal to the usual one, and another object.
            if found is not _FLOAT32 and found is not _FLOAT64 and found not in DTYPES:
                return None
            dtype = found
        flags = array.flags
        if (found is not dtype and found != dtype) or not flags.c_contiguous or not flags.aligned:
            return None
    return dtype


def check_cached(
    source: str, names: tuple[str, ...], arrays: tuple[np.ndarray, ...], shapes: tuple[tuple[int, ...], ...]
) -> None:
    """Refuse arrays of a cache that are not as `source` left them: of `shapes`, and fit for the kernels."""
    if tuple([array.shape for array in arrays]) == shapes and ready(*arrays) is not None:
        return
    held = " and ".join(f"{name} {a.shape} of dtype {a.dtype}" for name, a in zip(names, arrays, strict=True))
    raise ValueError(
        f"cache holds {held}, which {source} did not put there: its were {' and '.join(map(str, shapes))}, "
        "C-contiguous and of one float dtype"
    )


def as_floats(name: str, value: Any, threads: int | None = None) -> np.ndarray:
    """`value` as the kernels read it, of the dtype that it is computed in: itself where it already is so."""
    if ready(value) is not None:
        return value
    array = as_array(name, value)
    return prepare(array, result_dtype(array), threads)


def check_bytes(what: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of an array of that shape, refused where they overflow the address space."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > sys.maxsize:
        raise ValueError(
            f"{what} of shape {shape} and dtype {dtype} would take {nbytes} bytes, more than can be addressed"
        )
    return nbytes


def fresh(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """An array for a result, of no defined content."""
    try:
        return _memory.empty(shape, dtype)
    except ValueError:  # too large to be addressed: said in our words
        check_bytes(what, shape, dtype)
        raise


def output(
    out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype, what: str, **inputs: np.ndarray | None
) -> np.ndarray:
    """A fresh array for a result, or `out` once it is known to be fit to hold it."""
    if out is None:
        return fresh(shape, dtype, what)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
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


#: A workspace up to this size is kept for the next call of the same thread.
KEPT_BYTES = 1 << 25
#: Bytes of a cache line, at one of which it starts.
_LINE = 64
_kept = threading.local()


class workspace:
    """Memory for one call, of no defined content: a context manager that gives an array.

    Fresh memory comes from the system page by page, which for a small image
    takes longer than its product; so each thread keeps what it used last. It is
    taken out while in use: a call from within a call, as a finaliser may make,
    gets memory of its own.
    """

    __slots__ = ("_array", "_buffer")

    def __init__(self, what: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        buffer, array = vars(_kept).pop("memory", (None, None))
        # The same layer again, as often as not.
        if array is None or array.shape != shape or array.dtype is not dtype:
            nbytes = check_bytes(what, shape, dtype)
            if buffer is None or buffer.nbytes < nbytes + _LINE:
                buffer = array = None  # what is too small is given back first
                buffer = _memory.scratch(nbytes + _LINE)
            # NumPy's arrays may start 16 bytes into a line, where every other vector would be in two.
            start = -buffer.__array_interface__["data"][0] % _LINE
            array = np.ndarray(shape, dtype, buffer, start)
        self._buffer: np.ndarray = buffer
        self._array: np.ndarray = array

    def __enter__(self) -> np.ndarray:
        return self._array

    def __exit__(self, *_: object) -> None:
        if self._buffer.nbytes <= KEPT_BYTES + _LINE:
            _kept.memory = self._buffer, self._array


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    effort: Any = 100_000  # the exact answer can take exponential time; past this it counts as an overlap
    try:
        return np.shares_memory(a, b, max_work=effort)
    except np.exceptions.TooHardError:
        return True


def lift(array: np.ndarray, lead: int) -> np.ndarray:
    """A view with three spatial axes: unit axes put in after the first `lead` axes."""
    missing = 3 - (array.ndim - lead)
    return array[(slice(None),) * lead + (np.newaxis,) * missing] if missing else array


def cast_gradient(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype, threads: int | None = None
) -> np.ndarray:
    """An upstream gradient in the dtype of the forward pass; its shape must be the output's."""
    array = as_array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but the output of the forward pass has shape {shape}")
    return prepare(array, dtype, threads)
