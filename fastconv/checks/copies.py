"""C-contiguous copies of arrays, mainly of images in channels-last layout.

NumPy copies an image in channels-last layout element by element in one thread. This copy takes about twenty times as
long as pooling the image. The kernel of this module transposes blocks in registers, and almost reaches the memory
bandwidth.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.packing import copies as _ext
from fastconv.checks.dtypes import DTYPES
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans

#: The smallest array, in bytes, that fastconv's kernel copies. NumPy copies smaller arrays, because for small arrays
#: the lookup of the block sizes takes longer than the copy.
_SMALL_BYTES = 1 << 15
#: A thread copies one block at a time. A block has at most `_BLOCK_HIGH` rows and about `_BLOCK_BYTES` bytes. The
#: length of a row is a multiple of a cache line (`_LINE` bytes).
_BLOCK_HIGH, _BLOCK_BYTES, _LINE = 64, 1 << 16, 64
#: The smallest copy, in bytes, that is written with streaming stores, which bypass the caches. A normal store first
#: reads the cache line that it overwrites, so the copy takes 1.5 times as long.
_PAST_BYTES = 1 << 22


def contiguous(array: np.ndarray, threads: int | None = None) -> np.ndarray:
    """Return a C-contiguous copy of `array`. `threads` is the number of threads; None means the default."""
    if array.nbytes >= _SMALL_BYTES and array.flags.aligned and type(array) is np.ndarray:
        kind = DTYPES.get(array.dtype)
        layout = array.shape, array.strides, array.itemsize
        plan = plans.find(make_plan, *layout) if kind is not None else None
        if plan is not None:
            copy = _memory.empty(array.shape, array.dtype)
            _threads.share(
                plan.run,
                (array, copy, kind, _isa.current),
                items=plan.items,
                work=array.nbytes,
                threads=_threads.get_threads() if threads is None else threads,
            )
            return copy
    return np.array(array, order="C")


def make_plan(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> _ext.CopyPlan | None:
    """Return the compiled plan of the copy, or None if NumPy should make the copy.

    The kernel transposes planes of two axes: the last axis, along which the copy is contiguous, and the axis along
    which the array has the smallest stride. If both are the same axis, NumPy makes the copy, because it copies
    contiguous rows fast. NumPy also makes the copy if a stride is not a multiple of the item size.
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
    # `axes` is in reverse order: axes[0] is the last axis of the array.
    if len(axes) < 2:
        return None
    near = min((axis for axis in axes if axis[1]), key=lambda axis: abs(axis[1]), default=axes[0])
    if near is axes[0]:
        return None
    (wide, pitch, _), (high, step, to_pitch) = axes[0], near
    block_high = min(high, _BLOCK_HIGH)
    block_wide = min(wide, max(_BLOCK_BYTES // (block_high * _LINE), 1) * (_LINE // itemsize))
    return _ext.CopyPlan(
        rows=high,
        row_stride=step,
        to_row_stride=to_pitch,
        columns=wide,
        column_stride=pitch,
        outer=[axis for axis in reversed(axes) if axis is not near and axis is not axes[0]],
        block_rows=block_high,
        block_columns=block_wide,
        nontemporal=math.prod(shape) * itemsize >= _PAST_BYTES,
    )
