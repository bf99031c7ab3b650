"""The division of planes into bands, for the gradient of max pooling.

A band is a range of the cells of a plane (one channel of one image). A thread adds gradients to one band at a time.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.pool import pool as _ext
from fastconv.layers.pool.plan import PoolCase, kernel_axes
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Bands:
    """The compiled plan of the gradient of max pooling by bands, the number of bands of a plane, and the number of
    bytes of the lists of the plan.
    """

    kernel: _ext.MaxBackwardBands
    bands: int
    nbytes: int


def make_bands(case: PoolCase) -> Bands:
    """Divide a plane into bands along its first axis, and return the compiled plan.

    A band is at least half as long as a window. Shorter bands would be inefficient, because a thread would read many
    outputs for few cells.
    """
    geometry = case.geometry
    axis = kernel_axes(geometry)[-len(geometry.axes)]
    cells, outputs = geometry.cells // axis.size, math.prod(geometry.out_shape[3:])
    wanted = max(
        -(-geometry.cells * case.dtype.itemsize // case.tuning.band_bytes),
        -(-2 * case.threads // max(geometry.planes, 1)),
    )
    pieces = max(1, min(wanted, 2 * axis.size // axis.extent, axis.size))
    ends = np.arange(pieces + 1) * axis.size // pieces
    begin, end = ends[:-1], ends[1:]
    # Only the outputs from `first` to `last` - 1 along the axis have windows that may overlap the band.
    first = np.clip(-((axis.extent - 1 - begin - axis.lo) // axis.stride), 0, axis.out)
    last = np.clip((end - 1 + axis.lo) // axis.stride + 1, first, axis.out)
    lists = {
        "cell_begin": begin * cells,
        "cell_end": end * cells,
        "output_begin": first * outputs,
        "output_end": last * outputs,
    }
    arrays = {name: np.ascontiguousarray(values, np.intp) for name, values in lists.items()}
    kernel = _ext.MaxBackwardBands(
        dtype=case.dtype_index,
        int64_indices=case.has_int64_indices,
        planes=geometry.planes,
        cells=geometry.cells,
        outputs=math.prod(geometry.out_shape[2:]),
        page_bytes=case.tuning.page_bytes,
        **arrays,
    )
    return Bands(kernel, pieces, sum(array.nbytes for array in arrays.values()))
