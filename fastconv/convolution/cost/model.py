"""The cost of an algorithm in seconds: amounts of work times measured rates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.ops import OPS as OPS, Op
from fastconv.geometry.conv import ConvGeometry


def rates_in_use() -> _rates.Rates:
    """Nanoseconds by algorithm, op and kind of work, for this kind of CPU or the nearest that was measured."""
    return _rates.in_use()


#: Default rates, in nanoseconds: of padding images, for a byte and for a call; and of a product in several threads of
#: BLAS, because waking them takes milliseconds now and then, and many small products in a row then take 10 to 30 times
#: their usual time.
_OPTIONAL = {"border": 0.1, "borders": 5000.0, "wakes": 30_000.0}


def seconds(name: str, op: Op, work: Mapping[str, float]) -> float:
    """Seconds of an amount of work of algorithm `name`; infinity if it was not measured."""
    rates = rates_in_use().get(name, {}).get(op)
    if rates is None or not rates.keys() >= work.keys() - _OPTIONAL.keys():
        return math.inf
    return 1e-9 * sum((rates[kind] if kind in rates else _OPTIONAL[kind]) * amount for kind, amount in work.items())


def multiply_adds(geometry: ConvGeometry) -> int:
    """The multiply-adds, which are the same for each op."""
    return geometry.flops // 2


def total_bytes(geometry: ConvGeometry, dtype: np.dtype) -> int:
    """Bytes of image, weights and output, which every algorithm reads or writes."""
    shapes = geometry.x_shape, geometry.w_shape, geometry.out_shape
    return sum(math.prod(shape) for shape in shapes) * dtype.itemsize


#: The bytes that fit the caches of a core, and a cache that cores share, for the cost model: about those of CPUs of
#: 2020 to 2026.
NEAR_BYTES, _CACHED_BYTES = 1 << 20, 24 << 20


def memory(geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
    """The work of reading and writing image, weights and output: bytes of a thread, its bytes beyond the caches of a
    core, and the bytes of all threads beyond all caches, because threads share the bandwidth of memory.
    """
    nbytes = float(total_bytes(geometry, dtype))
    return {
        "bytes": nbytes / threads,
        "shared_cache_bytes": max(nbytes / threads - NEAR_BYTES, 0.0),
        "dram_bytes": max(nbytes - _CACHED_BYTES, 0.0),
    }


def share(items: int, threads: int) -> float:
    """The share of all work of the thread with most items."""
    return -(-items // max(1, min(threads, items))) / max(items, 1)
