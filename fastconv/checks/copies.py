"""C-contiguous copies of arrays, above all of images whose channels are last in memory.

NumPy copies such a view element by element, in one thread, which takes about
twenty times as long as pooling the image. Here blocks are transposed in
registers, at about the speed of memory.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from fastconv._ext import copies as _ext
from fastconv.checks.dtypes import DTYPES
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads

#: NumPy copies arrays of fewer bytes, because finding a plan takes longer.
_SMALL_BYTES = 1 << 15
#: The most rows of the copy in a block, and its bytes; its rows end with a cache line.
_BLOCK_HIGH, _BLOCK_BYTES, _LINE = 64, 1 << 16, 64
#: Larger copies bypass the caches, because these would first read the lines that are overwritten, which takes half as
#: long again.
_PAST_BYTES = 1 << 22


def contiguous(array: np.ndarray, threads: int | None = None) -> np.ndarray:
    """A C-contiguous copy of an array, of the same dtype, by `threads` threads; None is the default."""
    if array.nbytes >= _SMALL_BYTES and array.flags.aligned and type(array) is np.ndarray:
        kind = DTYPES.get(array.dtype)
        found = _plan(array.shape, array.strides, array.itemsize) if kind is not None else None
        if found is not None:
            plan, items = found
            copy = _memory.empty(array.shape, array.dtype)
            _threads.share(
                _ext.copy,
                (array, copy, plan, kind, _isa.current),
                items=items,
                work=array.nbytes,
                threads=_threads.get_threads() if threads is None else threads,
            )
            return copy
    return np.array(array, order="C")


@functools.lru_cache(maxsize=256)
def _plan(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[np.ndarray, int] | None:
    """The plan for the kernel, and the number of its blocks; None if NumPy copies contiguous runs.

    A plane has the axis along which the copy is contiguous (the last), and the axis along which the array is.
    """
    if any(stride % itemsize for stride in strides):
        return None
    axes: list[list[int]] = []
    pitch = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        step = stride // itemsize
        if size > 1:
            if axes and step == axes[-1][1] * axes[-1][0]:
                axes[-1][0] *= size
            else:
                axes.append([size, step, pitch])
        pitch *= size
    # The order of axes is reversed here.
    if len(axes) < 2:
        return None
    near = min((axis for axis in axes if axis[1]), key=lambda axis: abs(axis[1]), default=axes[0])
    if near is axes[0]:
        return None
    (wide, pitch, _), (high, step, to_pitch) = axes[0], near
    outer = [axis for axis in reversed(axes) if axis is not near and axis is not axes[0]]
    block_high = min(high, _BLOCK_HIGH)
    block_wide = min(wide, max(_BLOCK_BYTES // (block_high * _LINE), 1) * (_LINE // itemsize))
    items = -(-high // block_high) * -(-wide // block_wide)
    for size, _, _ in outer:
        items *= size
    past = math.prod(shape) * itemsize >= _PAST_BYTES
    header = [step, pitch, to_pitch, high, wide, block_high, block_wide, len(outer), past]
    return np.array(header + [number for axis in outer for number in axis], np.intp), items
