"""Mirrored, replicated and circular padding of images, and the adjoint of this padding.

Most kernels support zero padding only. For any other padding mode, `extend` makes the padded image, and `fold` computes
the gradient of the image from the gradient of the padded image. Each function takes as long as a copy of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv._ext.lowering import borders as _ext
from fastconv.checks import arrays as _arrays
from fastconv.geometry.axis import UNIT_AXIS, Axis, source_cells
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans


def extend(x: np.ndarray, geometry: ConvGeometry, threads: int = 1) -> np.ndarray:
    """Return a padded copy of x (N, C, *spatial), with the pads and the padding mode of `geometry`."""
    padded = _memory.empty((*x.shape[:2], *(axis.padded for axis in geometry.axes)), x.dtype)
    if x.size:
        _share(_plan(geometry).extend, x, padded, rows=padded.size // padded.shape[-1], threads=threads)
    return padded


def fold(dpadded: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int = 1) -> None:
    """Write the gradient of the image to `dx`, given the gradient `dpadded` of the padded image.

    This function is the adjoint of `extend`, which copies each cell of the image to one or more cells of the padded
    image. The gradient at a cell of the image is the sum of the gradients at its copies.
    """
    if dx.size:
        _share(_plan(geometry).fold, dpadded, dx, rows=dx.size // dx.shape[-1], threads=threads)


def _share(kernel: Any, source: np.ndarray, to: np.ndarray, rows: int, threads: int) -> None:
    arguments = source, to, _arrays.DTYPES[source.dtype], _isa.current
    _threads.share(kernel, arguments, items=rows, work=source.nbytes + to.nbytes, threads=threads)


def _plan(geometry: ConvGeometry) -> _ext.BordersPlan:
    return plans.find_sized(_nbytes, make_plan, geometry.axes, geometry.pad_mode)


def _nbytes(plan: _ext.BordersPlan) -> int:
    return plan.nbytes


def make_plan(axes: tuple[Axis, ...], pad_mode: str) -> _ext.BordersPlan:
    """Return the compiled plan of the padding. Missing spatial axes have size 1."""
    axes = (*(UNIT_AXIS,) * (3 - len(axes)), *axes)
    *outer, last = axes
    cells = [source_cells(np.arange(-axis.lo, axis.padded - axis.lo), axis.size, pad_mode) for axis in outer]
    counts = [np.bincount(of_axis, minlength=axis.size) for axis, of_axis in zip(outer, cells, strict=True)]
    padding = np.concatenate([np.arange(-last.lo, 0), np.arange(last.size, last.size + last.hi)])
    of_last = source_cells(padding, last.size, pad_mode)
    return _ext.BordersPlan(
        size=[axis.size for axis in axes],
        padded=[axis.padded for axis in axes],
        lo=last.lo,
        cells=[np.ascontiguousarray(of_axis, np.intp) for of_axis in (*cells, of_last)],
        firsts=[np.concatenate([[0], np.cumsum(count)]).astype(np.intp) for count in counts],
        copies=[np.argsort(of_axis, kind="stable").astype(np.intp) for of_axis in cells],
    )
