"""Block sizes and thresholds of pooling."""

from __future__ import annotations

import numpy as np

from fastconv.runtime.records import dataclass

_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Tuning:
    """The sizes by which poolings divide their work, and the limits of the kernels.

    Tests use small values, so that small images have many blocks.
    """

    #: The approximate number of elements of a block of the kernel 'rows'. Such a block fits into the L1 cache.
    block_elements: int = 3072
    #: The maximum workspace of a thread of the kernel 'rows', in elements. Other windows need another kernel.
    most_rows_workspace: int = 1 << 16
    #: The maximum number of taps of a window for the kernel 'rows'. Larger windows would have long lists of taps.
    most_taps: int = 1024
    #: The approximate size of a band, in bytes. A band is a range of rows of dx. A thread adds gradients to one band at
    #: a time.
    band_bytes: int = 1 << 19
    #: The maximum size of all pages of a thread together, in bytes. A page holds rounding errors of cells of dx.
    page_bytes: int = 1 << 23
    #: This many bytes of workspace of the kernel 'axis by axis' fit into the L2 cache. A plan may use up to four times
    #: as many bytes if that saves time.
    ring_bytes: int = 1 << 20
    #: The minimum width of a piece (a part of a plane) of the kernel 'axis by axis', in elements. Only a narrower plane
    #: has narrower pieces.
    least_width: int = 64
    #: The approximate maximum workspace of a thread of the kernel 'axis by axis', in bytes. A pooling that needs a
    #: larger workspace raises an error.
    most_bytes: int = 1 << 30
    #: For maxima in float32, the maximum number of cells from the first to the last cell of a piece of the kernel 'axis
    #: by axis'. The kernel then stores the indices of the cells in 32 bits.
    most_float32_cells: int = _INT32_MAX
    #: The maximum number of cells of a plane for which the indices of maxima are int32.
    most_int32_cells: int = _INT32_MAX
    #: About this many bytes of computed powers are in memory at a time.
    power_bytes: int = 1 << 20
    #: A row of powers (all values at one index of the first spatial axis) is divided into parts if it has more bytes
    #: than this. If windows are long, even the parts may have more bytes.
    line_bytes: int = 1 << 16
    #: The approximate number of bytes of windows that are copied at a time for a Python function.
    window_bytes: int = 1 << 23


#: The values in use.
TUNING = Tuning()
