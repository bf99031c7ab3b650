"""Sums and maxima of planes, computed by several threads. A plane is one channel of one image."""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.elementwise import planes as _ext
from fastconv.checks import arrays as _arrays
from fastconv.runtime import isa as _isa, threads as _threads


def plane_sums(x: np.ndarray, threads: int) -> np.ndarray:
    """Return the sum of each plane of x (N, C, *spatial), as a float64 array (N, C)."""
    sums = np.zeros(x.shape[:2])
    if x.size:
        _threads.share(
            _ext.totals,
            (_arrays.DTYPES[x.dtype], x.reshape(sums.size, -1), sums.reshape(-1), _isa.current),
            items=sums.size,
            work=x.nbytes // 2,
            threads=threads,
        )
    return sums


def channel_sums(x: np.ndarray, threads: int) -> np.ndarray:
    """Return the sum of each channel of x (N, C, *spatial), as an array (C,). The sums are computed in float64."""
    images, channels = x.shape[:2]
    if not x.size:
        return np.zeros(channels, x.dtype)
    sums = np.empty(channels, x.dtype)
    queue = _threads.work_queue(channels, x.nbytes // 2, threads)
    _ext.channels(_arrays.DTYPES[x.dtype], x, sums, images, _isa.current, queue)
    return sums


def plane_maxima(x: np.ndarray, out: np.ndarray, indices: np.ndarray, threads: int) -> None:
    """Write the maximum of each plane of x to `out`, and the index of the maximum in its plane to `indices`."""
    planes = math.prod(x.shape[:2])
    _threads.share(
        _ext.highest,
        (_arrays.DTYPES[x.dtype], x.reshape(planes, -1), out.reshape(-1), indices.reshape(-1), _isa.current),
        items=planes,
        work=x.nbytes // 2,
        threads=threads,
    )
