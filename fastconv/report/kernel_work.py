"""What `bench-kernel` runs: for each family of kernels, one call whose arrays fit into a cache, and one of usual size.

A family is a file `*_kernels.c` of `_ext`. Each call runs in one thread, and does most of its work in one family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv._ext.simd import peak as _peak
from fastconv.checks.copies import contiguous
from fastconv.checks.dtypes import DTYPES
from fastconv.convolution.dispatch import plan_for
from fastconv.geometry.conv import conv_geometry
from fastconv.layers.activation import relu_forward
from fastconv.layers.norm.batchnorm import spatial_batchnorm_forward
from fastconv.layers.norm.response import lrn_forward
from fastconv.layers.pool.global_pooling import global_avg_pool_forward
from fastconv.layers.pool.pooling import max_pool_forward
from fastconv.lowering.padding import extend
from fastconv.runtime import isa as _isa, workers as _workers

#: The share of the weights that are not zero in the calls of `sparse`.
DENSITY = 0.1
#: The number of work items of a call of the loop that measures the peak.
PEAK_ITEMS = 4


class Work(NamedTuple):
    """One call, and the amount of its work. One of the two amounts is 0, because it does not limit the rate."""

    size: str
    #: Floating-point operations. A multiply-add counts as two.
    operations: int
    #: Bytes of the arrays that the call reads and writes. Each array counts once.
    nbytes: int
    call: Callable[[], Any]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def peak(dtype: np.dtype) -> Work:
    """Return the loop of multiply-adds that uses registers only, which is the yardstick of other calls."""
    number, isa, sums = DTYPES[dtype], _isa.current, np.zeros(1)

    def call() -> None:
        _peak.multiply_add(PEAK_ITEMS, number, isa, sums, _workers.serial_queue())

    return Work("registers", PEAK_ITEMS * _peak.operations(number, isa), 0, call)


def copy(nbytes: int) -> Work:
    """Return a plain copy that reads and writes `nbytes` bytes together, which is the yardstick of other calls."""
    source, to = np.ones(max(1, nbytes // 2), np.uint8), np.ones(max(1, nbytes // 2), np.uint8)
    return Work(f"{nbytes} bytes", 0, source.nbytes + to.nbytes, lambda: np.copyto(to, source))


def _convolution(
    algorithm: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], dtype: np.dtype, groups: int = 1
) -> Work:
    """Return a convolution without padding by one algorithm.

    The operations are those of the direct sum over the weights that are not zero.
    """
    geometry = conv_geometry(x_shape, w_shape, groups=groups)
    x, w = _numbers(x_shape, dtype), _numbers(w_shape, dtype)
    products = math.prod(geometry.out_shape) * math.prod(w_shape[1:])
    if algorithm == "sparse":
        kept = round(w.size * DENSITY)
        w.reshape(-1)[np.random.default_rng(1).permutation(w.size)[kept:]] = 0
        # Each weight is part of a sum at every output position of every image.
        products = kept * x_shape[0] * math.prod(geometry.out_shape[2:])
    if algorithm == "separable":
        w[:] = np.multiply.outer(*(_numbers((n,), dtype) for n in w_shape[2:]))
    out = np.empty(geometry.out_shape, dtype)
    plan = plan_for("forward", geometry, dtype, algorithm, 1)
    size = f"{_shape(x_shape)} * {_shape(w_shape)}"
    return Work(size, 2 * products, 0, lambda: plan.run(x, w, None, out))


def _layer(forward: Callable[[np.ndarray], Any], shape: tuple[int, ...], dtype: np.dtype, note: str = "") -> Work:
    """Return the forward pass of a layer. Its work is the bytes of its input and its output."""
    x = _numbers(shape, dtype)
    out, *_ = forward(x)
    return Work(_shape(shape) + note, 0, x.nbytes + out.nbytes, lambda: forward(x))


def _batchnorm(x: np.ndarray) -> Any:
    ones = np.ones(x.shape[1], x.dtype)
    return spatial_batchnorm_forward(x, ones, ones, {"mode": "train"})


def _response(x: np.ndarray) -> Any:
    return lrn_forward(x, {"size": 5})


def _copies(shape: tuple[int, ...], dtype: np.dtype) -> Work:
    """Return the copy of images with channels last to the order of channels first."""
    x = np.moveaxis(_numbers((shape[0], *shape[2:], shape[1]), dtype), -1, 1)
    return Work(f"{_shape(shape)}, channels last", 0, 2 * x.nbytes, lambda: contiguous(x, 1))


def _borders(shape: tuple[int, ...], dtype: np.dtype) -> Work:
    """Return the mirrored padding of images by two cells at each side."""
    geometry = conv_geometry(shape, (1, shape[1], 5, 5), pad=2, pad_mode="reflect")
    x = _numbers(shape, dtype)
    return Work(f"{_shape(shape)}, pad 2", 0, x.nbytes + extend(x, geometry).nbytes, lambda: extend(x, geometry))


def _pool(shape: tuple[int, ...], dtype: np.dtype, k: int, stride: int) -> Work:
    """Return a maximum over windows of k x k cells, which also finds the index of each maximum (32 bits)."""
    work = _layer(lambda x: max_pool_forward(x, k, stride=stride), shape, dtype, f", {k}x{k} stride {stride}")
    outputs = math.prod(shape[:2]) * math.prod((n - k) // stride + 1 for n in shape[2:])
    return work._replace(nbytes=work.nbytes + 4 * outputs)


#: For each family, two functions. The first prepares a call whose arrays fit in the cache, and the second prepares a
#: call of the usual size.
WORK: dict[str, tuple[Callable[[np.dtype], Work], ...]] = {
    "peak": (peak,),
    "microkernel": (
        lambda dtype: _convolution("implicit", (1, 32, 16, 16), (32, 32, 3, 3), dtype),
        lambda dtype: _convolution("implicit", (4, 64, 56, 56), (64, 64, 3, 3), dtype),
    ),
    "winograd": (
        lambda dtype: _convolution("winograd", (1, 32, 16, 16), (32, 32, 3, 3), dtype),
        lambda dtype: _convolution("winograd", (4, 64, 56, 56), (64, 64, 3, 3), dtype),
    ),
    "fft": (
        lambda dtype: _convolution("fft", (1, 4, 32, 32), (4, 4, 9, 9), dtype),
        lambda dtype: _convolution("fft", (4, 16, 96, 96), (16, 16, 11, 11), dtype),
    ),
    "depthwise": (
        lambda dtype: _convolution("depthwise", (1, 32, 16, 16), (32, 1, 3, 3), dtype, 32),
        lambda dtype: _convolution("depthwise", (4, 128, 56, 56), (128, 1, 3, 3), dtype, 128),
    ),
    "separable": (
        lambda dtype: _convolution("separable", (1, 8, 32, 32), (8, 1, 7, 7), dtype, 8),
        lambda dtype: _convolution("separable", (1, 3, 512, 512), (3, 1, 11, 11), dtype, 3),
    ),
    "sparse": (
        lambda dtype: _convolution("sparse", (1, 32, 16, 16), (32, 32, 3, 3), dtype),
        lambda dtype: _convolution("sparse", (4, 64, 56, 56), (64, 64, 3, 3), dtype),
    ),
    "toeplitz": (
        lambda dtype: _convolution("toeplitz", (32, 4, 8, 8), (8, 4, 3, 3), dtype),
        lambda dtype: _convolution("toeplitz", (64, 16, 16, 16), (16, 16, 3, 3), dtype),
    ),
    "pool": (
        lambda dtype: _pool((1, 8, 32, 32), dtype, 3, 2),
        lambda dtype: _pool((4, 64, 112, 112), dtype, 3, 2),
    ),
    "pool_running": (
        lambda dtype: _pool((1, 4, 48, 48), dtype, 15, 1),
        lambda dtype: _pool((4, 16, 112, 112), dtype, 31, 1),
    ),
    "norm": (
        lambda dtype: _layer(_batchnorm, (8, 8, 8, 8), dtype),
        lambda dtype: _layer(_batchnorm, (8, 64, 56, 56), dtype),
    ),
    "lrn": (
        lambda dtype: _layer(_response, (1, 16, 16, 16), dtype),
        lambda dtype: _layer(_response, (4, 64, 56, 56), dtype),
    ),
    "activation": (
        lambda dtype: _layer(relu_forward, (4, 1024), dtype),
        lambda dtype: _layer(relu_forward, (8, 64, 56, 56), dtype),
    ),
    "planes": (
        lambda dtype: _layer(global_avg_pool_forward, (1, 8, 32, 32), dtype),
        lambda dtype: _layer(global_avg_pool_forward, (8, 64, 56, 56), dtype),
    ),
    "copies": (
        lambda dtype: _copies((1, 16, 32, 32), dtype),
        lambda dtype: _copies((8, 64, 56, 56), dtype),
    ),
    "borders": (
        lambda dtype: _borders((1, 8, 28, 28), dtype),
        lambda dtype: _borders((8, 64, 56, 56), dtype),
    ),
}
