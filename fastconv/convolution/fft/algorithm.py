"""The algorithm `fft`, for kernels so large that transforms cost less than direct sums over taps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv._ext.fft import fft as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, add_bias
from fastconv.convolution.cost.model import memory
from fastconv.convolution.fft import lengths as _fft_lengths, phase_axes as _fft_axes, tiling as _fft_tiling
from fastconv.convolution.fft.layouts import layouts
from fastconv.convolution.fft.tiling import DEFAULT_TUNING, Tuning
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The largest number of bytes that the spectrum of a kernel may have.
_MOST_BYTES = 1 << 30
#: The largest index that a cell of the padded image may have, so that offsets in bytes fit 64 bits.
_MOST_CELLS = 1 << 58
_KINDS = ("passes", "moves", "products", "steps", "serial_steps", "cells", "uncached", "spectra")
#: The largest number of bytes of spectra that stay in the second-level cache of a thread until the next step.
_HELD_BYTES = 1 << 20


@dataclass(frozen=True)
class FftCall:
    """What a run needs besides the arrays of the caller."""

    plan: _ext.TransformPlan
    #: The descriptions of the arrays of twiddle factors, as `lengths.factors` expects them.
    factors: tuple[tuple[int, ...], ...]
    #: The estimated time of the call, as the number of bytes that a plain copy moves in that time.
    work: int
    #: Whether the kernel writes every element of dx.
    covers: bool


class Fft(Algorithm):
    """Products of spectra of overlapping tiles (overlap-save).

    A tile of the image includes a margin, because outputs at its edge read cells beyond the edge. A tile is
    transformed, multiplied by the conjugate spectra of the weights, and transformed back. Results that wrap around the
    end of the tile are discarded. In each group and at each frequency:

    - forward: ``out^ = w^* @ x^``, where ``x^`` is the spectrum of x, and ``w^*`` is the conjugate spectrum of w
    - backward_data: ``dx^ = w^* @ dout^``, where w is flipped
    - backward_weights: ``dw^`` is the sum of ``dout^* @ x^`` over tiles and images, and is transformed back once

    One complex transform serves two tiles of an image: one as its real part, the other as its imaginary part. Products
    do not mix the two tiles, because the weights are real. For dw, the real part of the result is the sum of the
    gradients of both tiles. A transform never combines tiles of different images, channels or filters, because its
    error is relative to the largest number in it. Axes with a stride or dilation are divided into phases (see
    `phase_axes`), so that no zeros between taps or outputs are transformed.

    The rounding error of an output is about ``eps * log2(length)`` times the largest ``|x| * |w|`` in the two tiles of
    a transform. So small outputs may have large relative errors. On random data, the error stays below 2e-5 in float32
    and 1e-13 in float64, relative to the largest output. On noise, offsets and single hot pixels, it is at most four
    times the error of `scipy.signal.fftconvolve`.

    Small outputs may be lost in this error if a tile also has very large numbers. For example, in float32, a tail that
    is 1e-8 times as loud as a click in its tile is lost. ``algorithm='exact'`` avoids this loss.

    A NaN or inf makes every output of its tiles NaN or inf, but does not affect other images. Numbers whose sum over a
    tile overflows have the same effect. 'auto' computes such images again by an algorithm that sums products.

    The image is not padded in memory, because the kernel computes the index of each cell that the padding repeats. If
    an image with circular padding has sizes without prime factors above 5, one cyclic transform may serve the whole
    image.

    With circular padding, dx is sometimes a correlation of dout with circular padding (see `phase_axes.wraps_back`). In
    all other cases, the gradient of the padded image is computed. The gradient of the padding is then added to the
    cells that the padding repeats.

    References
    ----------
    M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks
    through FFTs", arXiv:1312.5851; A. V. Oppenheim, R. W. Schafer,
    "Discrete-Time Signal Processing", section 8.7 (overlap-save); W. M. Gentleman,
    G. Sande, "Fast Fourier transforms: for fun and profit", AFIPS 1966 (two
    real transforms as one, decimation in frequency).
    """

    name = "fft"

    def __init__(self, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.tuning = tuning

    def unsupported(self, case: Case) -> str | None:
        """Refuse kernels too large for a single transform, and strides or dilations that make indices too large."""
        geometry = case.geometry
        phase_axes = [_fft_axes.axis_of(axis, geometry, case.op) for axis in geometry.axes]
        last_cell = max(
            phase_axis.lo + phase_axis.step * (phase_axis.whole + phase_axis.margin + 2) for phase_axis in phase_axes
        )
        if last_cell > _MOST_CELLS:
            return f"with its stride and dilation, cells have indices up to {last_cell}; at most {_MOST_CELLS} is legal"
        spans = tuple(phase_axis.margin + 1 for phase_axis in phase_axes)
        nbytes = math.prod(2 * span for span in spans) * 2 * case.dtype.itemsize
        if nbytes > _MOST_BYTES:
            return (
                f"the transform of a kernel of {spans} taps would take {nbytes} bytes, and at most {_MOST_BYTES} are "
                f"legal; algorithm='exact' needs less memory"
            )
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case."""
        return FftPlan(case, self.tuning)


class FftPlan(Plan):
    """Computes an op by one call of the compiled kernel.

    Plans are compared by the estimated cost of their tilings. The compiled plan is made at the first run.
    """

    algorithm = Fft.name
    uses_transforms = True

    def __init__(self, case: Case, tuning: Tuning) -> None:
        super().__init__(case)
        self._tuning = tuning
        # Whether the kernel itself applies the padding mode. For dx, it can do so only if `wraps_back` is true.
        # Otherwise, the wrapper `Padded` adds the gradient of the padding to dx.
        self.reads_borders = case.op != "backward_data" or _fft_axes.wraps_back(case.geometry)

    @cached_property
    def tiling(self) -> _fft_tiling.FftTiling | None:
        """The sizes of tiles and of blocks of spectra. It is None if every output reads only padding."""
        case = self.case
        return plans.find(_make_tiling, case.op, case.geometry, case.dtype, case.threads, case.isa, self._tuning)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of all spectra in memory, of the tiles that threads transform, and of the twiddle factors."""
        return 0 if self.tiling is None else self.tiling.nbytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work: passes of transforms, moves of vectors, products, and steps.

        A move loads, transposes and stores a row of a transform. If tiles do not fit the second-level cache, their
        passes and moves are also counted as `uncached`. If the spectra do not fit the second-level cache, the bytes
        that products read are counted as `spectra`.
        """
        case, tiling = self.case, self.tiling
        work = dict.fromkeys(_KINDS, 0.0) | memory(case.geometry, case.dtype, case.threads) | {"call": 1.0}
        if tiling is None:
            return work
        work |= {kind: float(tiling.work[kind]) for kind in ("passes", "moves", "products")}
        # A single thread does not wait for other threads between steps.
        work["steps" if case.threads > 1 else "serial_steps"] = float(tiling.work["steps"])
        work["cells"] = work["moves"] * tiling.problem.lanes
        if tiling.distant:
            work["uncached"] = work["passes"] + work["moves"]
        held = tiling.elements * case.dtype.itemsize / case.threads
        if held > _HELD_BYTES:
            work["spectra"] = work["products"] * 2 * tiling.row * case.dtype.itemsize
        return work

    @cached_property
    def _call(self) -> FftCall | None:
        case, tiling = self.case, self.tiling
        if tiling is None:
            return None
        source, weights, result = layouts(tiling, case.geometry)
        plan = _ext.TransformPlan(
            dtype=_arrays.DTYPES[case.dtype],
            isa=case.isa,
            tiling=tiling,
            radices=[_fft_lengths.radices(length) for length in tiling.lengths],
            source=source,
            weights=weights,
            result=result,
            scale=1 / math.prod(tiling.lengths),
        )
        work = int(_isa.BYTES_PER_OPERATION * tiling.cost())
        return FftCall(plan, tiling.tables, work, all(axis.covers for axis in tiling.problem.phase_axes))

    def run(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray
    ) -> np.ndarray | None:
        """Compute the result. In a forward op, the kernel adds the bias. For dx, the bias is added after the kernel."""
        op, call = self.case.op, self._call
        if op == "forward":
            assert call is not None
            return self._run(call, first, second, result, third)
        if op == "backward_weights":
            assert call is not None
            return self._run(call, first, result, second, None)
        if call is None or not call.covers:
            result.fill(0)
        counts = None if call is None else self._run(call, first, second, result, None)
        add_bias(third, result)
        return counts

    def _run(
        self, call: FftCall, source: np.ndarray, weights: np.ndarray, result: np.ndarray, bias: np.ndarray | None
    ) -> np.ndarray | None:
        """Run the compiled plan. Return None if the result is finite. Otherwise return a count for each image: the
        count is above 0 if the result of the image has an inf or NaN.

        For backward_weights, the returned array has a single count, which is for dw.
        """
        case, dtype = self.case, source.dtype
        counts = np.zeros(1 if case.op == "backward_weights" else len(source), np.intp)
        depth, height, width, *between = _fft_lengths.factors(call.factors, dtype.itemsize)
        twiddles = between[0] if between else None
        queue = _threads.work_queue(case.threads, call.work, case.threads)
        with _workspace.workspace("spectra", (call.plan.workspace,), dtype) as space:
            call.plan.run(source, weights, result, bias, counts, (depth, height, width), twiddles, space, queue)
        return counts if counts.any() else None


def _make_tiling(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int, tuning: Tuning
) -> _fft_tiling.FftTiling | None:
    return _fft_tiling.make_tiling(op, geometry, dtype.itemsize, threads, tuning)
