"""The estimated seconds of an algorithm: the amounts of work times measured rates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.plan import OPS as OPS, Op
from fastconv.geometry.conv import ConvGeometry


def rates_in_use() -> _rates.Rates:
    """Return the rates for this kind of CPU, or for the nearest kind that was measured."""
    return _rates.in_use()


#: Rates, in nanoseconds, for kinds of work that may be missing from the measured rates:
#: - `border`: for each byte of padded images; `borders`: for each call that pads images
#: - `wakes`: for each product in several BLAS threads, because waking the threads takes milliseconds now and then, and
#:   many small products in a row then take 10 to 30 times their usual time
#: - `fetched`, `scattered`: for each cache line that tiles of `implicit` read; older measurements include these cache
#:   lines in other rates
#: - `vector_far`: for each byte of a matrix beyond the cache of a core, if `im2col` multiplies the matrix by a vector
_OPTIONAL = {"border": 0.1, "borders": 5000.0, "wakes": 30_000.0, "fetched": 0.0, "scattered": 0.0, "vector_far": 0.04}


def seconds(name: str, op: Op, work: Mapping[str, float]) -> float:
    """Return the estimated seconds of `work` in algorithm `name`. Without rates for the work, return infinity."""
    rates = rates_in_use().get(name, {}).get(op)
    if rates is None or not rates.keys() >= work.keys() - _OPTIONAL.keys():
        return math.inf
    return 1e-9 * sum((rates[kind] if kind in rates else _OPTIONAL[kind]) * amount for kind, amount in work.items())


def multiply_adds(geometry: ConvGeometry) -> int:
    """Return the number of multiply-adds, which is the same for all ops."""
    return geometry.flops // 2


def total_bytes(geometry: ConvGeometry, dtype: np.dtype) -> int:
    """Return the bytes of the image, the weights and the output. Every algorithm reads or writes all of them."""
    shapes = geometry.x_shape, geometry.w_shape, geometry.out_shape
    return sum(math.prod(shape) for shape in shapes) * dtype.itemsize


#: The cache sizes, in bytes, that the cost model assumes: the caches of one core, and the cache that cores share. CPUs
#: of 2020 to 2026 have about these sizes.
NEAR_BYTES, _CACHED_BYTES = 1 << 20, 24 << 20


def memory(geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
    """Return the work of reading and writing the image, the weights and the output."""
    return traffic(float(total_bytes(geometry, dtype)), threads)


def traffic(nbytes: float, threads: int) -> dict[str, float]:
    """Return the work of reading or writing `nbytes` bytes once.

    `bytes` is the number of bytes that one thread reads or writes. `shared_cache_bytes` is the number of these bytes
    that do not fit the caches of a core. `dram_bytes` is the number of bytes of all threads that fit no cache. All
    threads count, because they share the memory bandwidth.
    """
    return {
        "bytes": nbytes / threads,
        "shared_cache_bytes": max(nbytes / threads - NEAR_BYTES, 0.0),
        "dram_bytes": max(nbytes - _CACHED_BYTES, 0.0),
    }


def share(items: int, threads: int) -> float:
    """Return the share of all work that the thread with the most work items does, for example 2 / 3 for 3 items in 2
    threads.
    """
    return -(-items // max(1, min(threads, items))) / max(items, 1)
