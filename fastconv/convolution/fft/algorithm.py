"""Convolution as a product of spectra, for kernels so big that transforms cost less than their taps."""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext import fft as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import MethodAlgorithm
from fastconv.convolution.cost.model import memory
from fastconv.convolution.fft import (
    lengths as _fft_lengths,
    plan as _fft_plan,
    sides as _fft_sides,
    tables as _fft_tables,
)
from fastconv.convolution.ops import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: A transform of the kernel alone that takes more than this is refused.
_MOST_BYTES = 1 << 30
#: Places beyond this are refused, because their bytes would not be counted in 64 bits.
_MOST_CELLS = 1 << 58
_KINDS = ("passes", "moves", "products", "steps", "alone", "cells", "distant", "spectra")
#: Of spectra that stay in a core's second-level cache from one step to the next.
_HELD_BYTES = 1 << 20


@dataclass(frozen=True)
class Call:
    """A plan and what the kernels read of it."""

    plan: _fft_plan.Plan
    numbers: np.ndarray
    tables: tuple[tuple[int, ...], ...]
    scale: float
    work: int


class Fft(MethodAlgorithm):
    """Products of spectra, by overlap-save tiles.

    A tile of the image and the margin that its kernels reach into is transformed, multiplied by the conjugate spectra
    of the weights, and transformed back; what wrapped around is left out. ``^`` for spectra and ``*`` for the complex
    conjugate, per group and frequency:

    - forward:          out^ = w^* @ x^
    - backward_data:    dx^ = flipped w^* @ dout^
    - backward_weights: dw^ += dout^* @ x^, summed over tiles and images before one transform back

    Two tiles of an image go through one complex transform, as real and imaginary part: weights are real, so products
    leave them apart, and the real part of a sum of ``dout^* @ x^`` is the gradient of both. Tiles of different images
    never meet, nor do channels or filters: the error of a transform is relative to the largest number in it. Strides
    and dilations are taken apart into phases, so that nothing is transformed that is zero by definition.

    The error is relative to the largest of ``|x| * |w|`` over two tiles, not to each output: about
    ``eps * log2(length)``. At the output's scale it stays below 2e-5 in float32 and 1e-13 in float64 on random
    data, and within four times of the error of `scipy.signal.fftconvolve` on noise, offsets and single hot pixels.
    Numbers of a tile that are smaller than its largest by more than the precision of the dtype are lost in that
    error, also in outputs that do not read the largest one (a click before a quiet tail): ``algorithm='exact'``
    keeps them. A NaN or inf makes every output of its tiles NaN or inf, never another image's. Numbers whose sum
    over a tile overflows do the same. 'auto' computes such images again by an algorithm that sums products.

    Borders are read from the image itself, by the index of each cell. A circular image whose sizes have no prime
    factor above 5 may be one cyclic transform. The gradient of a circular image is such a correlation, too, if the
    outputs go round it a whole number of steps; other gradients are those of the extended image, folded back.

    References
    ----------
    M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks
    through FFTs", arXiv:1312.5851; A. V. Oppenheim, R. W. Schafer,
    "Discrete-Time Signal Processing", section 8.7 (overlap-save); W. M. Gentleman,
    G. Sande, "Fast Fourier transforms: for fun and profit", AFIPS 1966 (two
    real transforms as one, decimation in frequency).
    """

    name = "fft"
    sums_products = False

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """One phase of the kernel has to be transformed whole."""
        sides = [_fft_sides.side_of(axis, geometry, op) for axis in geometry.axes]
        farthest = max(side.lo + side.step * (side.whole + side.margin + 2) for side in sides)
        if farthest > _MOST_CELLS:
            return f"its stride and dilation set phases of the image {farthest} cells apart, beyond {_MOST_CELLS}"
        spans = tuple(side.margin + 1 for side in sides)
        nbytes = math.prod(2 * span for span in spans) * 2 * dtype.itemsize
        if nbytes > _MOST_BYTES:
            return (
                f"a transform of the kernel, which covers {spans} cells, would take {nbytes} bytes, more than "
                f"{_MOST_BYTES}; algorithm='exact' sums its taps in bounded memory"
            )
        return None

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """Tiles take what is beyond the image from its other cells; gradients are folded where none goes just round."""
        return op != "backward_data" or _fft_sides.wraps_back(geometry)

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Spectra of weights, sources and results, and a tile of each thread."""
        plan = _plan(op, geometry, dtype, threads)
        return 0 if plan is None else plan.nbytes

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """By the thread that does most: passes of transforms, moves of vectors, products, and steps; passes and moves
        of tiles that do not fit a second-level cache again, and bytes of spectra that do not stay there."""
        plan = _plan(op, geometry, dtype, threads)
        work = dict.fromkeys(_KINDS, 0.0) | memory(geometry, dtype, threads) | {"call": 1.0}
        if plan is None:
            return work
        work |= {kind: float(plan.work[kind]) for kind in ("passes", "moves", "products")}
        # A thread alone waits for nobody between steps.
        work["steps" if threads > 1 else "alone"] = float(plan.work["steps"])
        work["cells"] = work["moves"] * plan.problem.lanes
        if plan.distant:
            work["distant"] = work["passes"] + work["moves"]
        held = plan.elements * dtype.itemsize / threads
        if held > _HELD_BYTES:
            work["spectra"] = work["products"] * 2 * plan.row * dtype.itemsize
        return work

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Each phase of the outputs has tiles of its own; phases of the taps are summed as channels are."""
        return _run("forward", x, w, out, b, geometry, threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """The correlation of dout with the flipped kernel, for each phase of dx."""
        call = _call("backward_data", geometry, dx.dtype, threads)
        if call is None or not all(side.covers for side in call.plan.problem.sides):
            dx.fill(0)
        if call is None:
            return None
        return _run("backward_data", dout, w, dx, None, geometry, threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Spectra are summed, so that one transform back is enough."""
        return _run("backward_weights", x, dw, dout, None, geometry, threads)


def _run(
    op: Op,
    source: np.ndarray,
    weights: np.ndarray,
    result: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    threads: int,
) -> np.ndarray | None:
    dtype = source.dtype
    call = _call(op, geometry, dtype, threads)
    assert call is not None
    counts = np.zeros(1 if op == "backward_weights" else len(source), np.intp)
    factors = _fft_lengths.factors(call.tables, dtype.itemsize)
    with _workspace.workspace("spectra", (call.plan.elements,), dtype) as space:
        arrays = source, weights, result, bias, counts, call.numbers, factors
        _threads.share(
            _ext.run,
            (_arrays.DTYPES[dtype], *arrays, call.scale, space, _isa.current),
            items=threads,
            work=call.work,
            threads=threads,
        )
    return counts if counts.any() else None


def _plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> _fft_plan.Plan | None:
    return plans.find(_make_plan, op, geometry, dtype, threads, _isa.current)


def _make_plan(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int
) -> _fft_plan.Plan | None:
    return _fft_plan.make_plan(op, geometry, dtype.itemsize, threads)


def _call(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Call | None:
    return plans.find(_make_call, op, geometry, dtype, threads, _isa.current)


def _make_call(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int) -> Call | None:
    plan = _plan(op, geometry, dtype, threads)
    if plan is None:
        return None
    work = int(_isa.BYTES_PER_OPERATION * plan.cost())
    scale = 1 / math.prod(plan.lengths)
    return Call(plan, _fft_tables.numbers(plan, geometry), plan.tables, scale, work)
