"""Convolution of an upsampled image: the algorithms for ordinary strides compute each part of a
`FractionalGeometry`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastconv import _arrays, algorithms
from fastconv._fractional import FractionalGeometry, Part
from fastconv.algorithms.base import Op, per_channel
from fastconv.layers.resampling import every, upsample

#: Bytes of upsampled images at a time, if padding needs them.
_UPSAMPLED_BYTES = 1 << 23


def _parts(op: Op, geometry: FractionalGeometry, dtype: np.dtype, name: str, threads: int) -> tuple[Part, ...]:
    """The parts to compute. An algorithm that cannot serve all of them is refused before anything is written."""
    parts = geometry.parts
    assert parts is not None
    for part in parts:
        algorithms.choose(op, part.geometry, dtype, threads, name)
    return parts


def _turned(w: np.ndarray, geometry: FractionalGeometry) -> np.ndarray:
    return np.flip(w, tuple(range(2, w.ndim))) if geometry.upsampled.flip else w


def _chunks(geometry: FractionalGeometry, dtype: np.dtype) -> Iterator[slice]:
    """Slices of the batch whose upsampled copies are of bounded size."""
    shape = geometry.upsampled.x_shape
    step = max(1, _UPSAMPLED_BYTES // max(_arrays.check_bytes("the upsampled image", (1, *shape[1:]), dtype), 1))
    yield from (slice(n, min(n + step, shape[0])) for n in range(0, shape[0], step))


def forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    geometry: FractionalGeometry,
    out: np.ndarray,
    name: str,
    threads: int,
) -> None:
    """out = (x upsampled) * w + b, as `fastconv.algorithms.forward`."""
    whole = geometry.upsampled
    if geometry.parts is None:
        algorithms.choose("forward", whole, out.dtype, threads, name)
        for chunk in _chunks(geometry, x.dtype):
            part = whole.for_batch(chunk.stop - chunk.start)
            algorithms.forward(upsample(x[chunk], geometry.up), w, b, part, out[chunk], name, threads)
        return
    parts = _parts("forward", geometry, out.dtype, name, threads)
    if geometry.covered < whole.positions:
        out[...] = 0 if b is None else per_channel(b, whole)
    w = _turned(w, geometry)
    for each in parts:
        target = out[each.out]
        result = target if target.flags.c_contiguous else np.empty(each.geometry.out_shape, out.dtype)
        cells, taps = np.ascontiguousarray(x[each.cells]), np.ascontiguousarray(w[each.taps])
        algorithms.forward(cells, taps, b, each.geometry, result, name, threads)
        if result is not target:
            target[...] = result


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: FractionalGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """dx, as `fastconv.algorithms.backward_data`."""
    whole = geometry.upsampled
    if geometry.parts is None:
        algorithms.choose("backward_data", whole, dx.dtype, threads, name)
        for chunk in _chunks(geometry, dx.dtype):
            part = whole.for_batch(chunk.stop - chunk.start)
            spread = np.empty(part.x_shape, dx.dtype)
            algorithms.backward_data(dout[chunk], w, part, spread, name, threads)
            dx[chunk] = spread[every(geometry.up)]
        return
    parts = _parts("backward_data", geometry, dx.dtype, name, threads)
    dx.fill(0)
    w = _turned(w, geometry)
    for each in parts:
        result = np.empty(each.geometry.x_shape, dx.dtype)
        outs, taps = np.ascontiguousarray(dout[each.out]), np.ascontiguousarray(w[each.taps])
        algorithms.backward_data(outs, taps, each.geometry, result, name, threads)
        dx[each.cells] += result


def backward_weights(
    x: np.ndarray,
    dout: np.ndarray,
    geometry: FractionalGeometry,
    dw: np.ndarray,
    name: str,
    threads: int,
    kept: np.ndarray | None = None,
) -> None:
    """dw, as `fastconv.algorithms.backward_weights`: every tap belongs to one part, or reads zeros only."""
    whole = geometry.upsampled
    dw.fill(0)
    if geometry.parts is None:
        algorithms.choose("backward_weights", whole, dw.dtype, threads, name)
        for chunk in _chunks(geometry, x.dtype):
            part, total = whole.for_batch(chunk.stop - chunk.start), np.empty_like(dw)
            algorithms.backward_weights(upsample(x[chunk], geometry.up), dout[chunk], part, total, name, threads, kept)
            dw += total
        return
    turned, weights = _turned(dw, geometry), None if kept is None else _turned(kept, geometry)
    for each in _parts("backward_weights", geometry, dw.dtype, name, threads):
        result = np.empty(each.geometry.w_shape, dw.dtype)
        cells, outs = np.ascontiguousarray(x[each.cells]), np.ascontiguousarray(dout[each.out])
        taps = None if weights is None else np.ascontiguousarray(weights[each.taps])
        algorithms.backward_weights(cells, outs, each.geometry, result, name, threads, taps)
        turned[each.taps] = result
