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
        _share(_ext.extend, x, padded, geometry, rows=padded.size // padded.shape[-1], threads=threads)
    return padded


def fold(dpadded: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int = 1) -> None:
    """Write the gradient of the image to `dx`, given the gradient `dpadded` of the padded image.

    This function is the adjoint of `extend`, which copies each cell of the image to one or more cells of the padded
    image. The gradient at a cell of the image is the sum of the gradients at its copies.
    """
    if dx.size:
        _share(_ext.fold, dpadded, dx, geometry, rows=dx.size // dx.shape[-1], threads=threads)


def _share(kernel: Any, source: np.ndarray, to: np.ndarray, geometry: ConvGeometry, rows: int, threads: int) -> None:
    tables = plans.find_sized(_nbytes, _tables, geometry.axes, geometry.pad_mode)
    arguments = source, to, tables, _arrays.DTYPES[source.dtype], _isa.current
    _threads.share(kernel, arguments, items=rows, work=source.nbytes + to.nbytes, threads=threads)


def _nbytes(tables: np.ndarray) -> int:
    return tables.nbytes


def _tables(axes: tuple[Axis, ...], pad_mode: str) -> np.ndarray:
    """Return the tables of indices that the kernels in borders.h need, as one array. Missing spatial axes have size 1.

    The array has three parts. The first part has the sizes, the padded sizes, and the number of padding cells at the
    start of the last axis. The second part has, for each axis and each cell of the padded image, the index of the image
    cell that is copied to it. For the last axis, the second part covers only the padding. The third part has, for each
    axis but the last and each image cell, the indices of its copies in the padded image.
    """
    axes = (*(UNIT_AXIS,) * (3 - len(axes)), *axes)
    *outer, last = axes
    cells = [source_cells(np.arange(-axis.lo, axis.padded - axis.lo), axis.size, pad_mode) for axis in outer]
    borders = np.concatenate([np.arange(-last.lo, 0), np.arange(last.size, last.size + last.hi)])
    parts: list[Any] = [[axis.size for axis in axes], [axis.padded for axis in axes], [last.lo], *cells]
    parts.append(source_cells(borders, last.size, pad_mode))
    for axis, of_axis in zip(outer, cells, strict=True):
        starts = np.concatenate([[0], np.cumsum(np.bincount(of_axis, minlength=axis.size))])
        parts += [starts, np.argsort(of_axis, kind="stable")]
    return np.concatenate(parts).astype(np.intp)
