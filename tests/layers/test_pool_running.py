"""Pooling with windows of any size, axis by axis: values and places, sums that do not drift, bytes, and operations."""

import dataclasses
import functools
import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import oracle
import pytest
from test_pool_kernels import images, table, unaligned

from fastconv import (
    avg_pool_backward,
    avg_pool_forward,
    col2im,
    global_avg_pool_forward,
    lp_pool_backward,
    lp_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    pool_backward,
    pool_forward,
)
from fastconv.geometry.axis import Axis, windows
from fastconv.geometry.pool import _steps_over, resolve_pool
from fastconv.layers.pool import kernels as _pool_kernels, plan as pool_plan, rows as _rows, running as _pool_running
from fastconv.runtime import isa as _isa
from fastconv.runtime.memory import TooLargeError

NAN, INF = np.nan, np.inf
PLAIN = {"pad": 0, "dilation": 1, "ceil_mode": False}
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


@pytest.fixture(params=_isa.usable())
def each_isa(request, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.isa.current", _isa.NAMES.index(request.param))


@pytest.fixture(params=["whole", "pieces"])
def pieces(request, monkeypatch, forget):
    """Uses these kernels only, with whole planes, several planes at once, or planes cut along every axis."""
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    small = {"ring_bytes": 300, "least_width": 5, "band_bytes": 300, "page_bytes": 600}
    monkeypatch.setattr(
        pool_plan, "TUNING", pool_plan.Tuning(most_taps=0, **(small if request.param == "pieces" else {}))
    )
    forget()


WINDOWS = {
    "1-D": ((211,), [{"kernel_size": k, "stride": s} for k, s in ((2, 1), (37, 1), (100, 3), (211, 1), (31, 31))]),
    "1-D dilated": ((150,), [{"kernel_size": 9, "stride": s, "dilation": d} for s, d in ((1, 4), (4, 6), (3, 2))]),
    "2-D": (
        (23, 50),
        [
            {"kernel_size": (5, 7), "stride": 1},
            {"kernel_size": (16, 33), "stride": 1, "pad": (15, 3)},
            {"kernel_size": (23, 50), "stride": 1, "pad": (22, 49)},
            {"kernel_size": 9, "stride": (2, 3), "pad": [(0, 4), (8, 1)], "ceil_mode": True},
            {"kernel_size": (3, 5), "stride": (3, 5), "dilation": (2, 4)},
            {"kernel_size": 4, "stride": 6, "dilation": (4, 9)},
            {"kernel_size": (1, 8), "stride": (1, 2)},
            {"kernel_size": (8, 1), "stride": (5, 4)},
        ],
    ),
    "3-D": (
        (6, 9, 20),
        [
            {"kernel_size": (3, 5, 11), "stride": 1},
            {"kernel_size": (6, 4, 7), "stride": (1, 2, 3), "pad": (5, 1, 3)},
            {"kernel_size": 2, "stride": (4, 3, 5), "dilation": (3, 2, 9), "ceil_mode": True},
        ],
    ),
}
CASES = [(spatial, options) for spatial, many in WINDOWS.values() for options in many]
each_case = pytest.mark.parametrize("case", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])


@functools.lru_cache(maxsize=2)
def maxima_of(case, dtype):
    """Images with their maxima and places; and dout and dx for the last image."""
    rng, (spatial, options) = np.random.default_rng(1), CASES[case]
    shape = (3, 5, *spatial)
    geometry, cells = table(shape, options)
    found = []
    for x in (images(shape, dtype, rng), np.full(shape, -INF, dtype)):
        found.append((unaligned(x), *oracle.pool(x, cells, geometry.out_shape[2:], "max")))
    dout, places = rng.integers(-9, 9, geometry.out_shape).astype(dtype), found[-1][2]
    dx = np.zeros((15, geometry.cells))
    for plane, at, values in zip(dx, places.reshape(15, -1), dout.reshape(15, -1), strict=True):
        np.add.at(plane, at, values)
    return found, dout, dx.reshape(shape)


@dtypes
@each_case
def test_maxima(case, dtype, pieces, each_isa):
    """Values and places equal those of a loop over windows, with ties, padding, -inf and NaN."""
    found, dout, dx = maxima_of(case, dtype)
    for x, expected, places in found:
        for threads in (1, 2):
            out, cache = max_pool_forward(x, CASES[case][1], threads=threads)
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(max_pool_indices(cache), places)
    np.testing.assert_array_equal(max_pool_backward(dout, cache), dx)


@functools.lru_cache(maxsize=2)
def sums_of(case, dtype):
    """x and dout; means and dx with and without the padding in the count; norms and dx."""
    rng, (spatial, options) = np.random.default_rng(1), CASES[case]
    shape = (2, 5, *spatial)
    geometry, cells = table(shape, options)
    x = unaligned(rng.standard_normal(shape).astype(dtype))
    flat = x.reshape(10, -1).astype(float)
    dout = unaligned(rng.standard_normal(geometry.out_shape).astype(dtype))
    # How often each window reads each cell; the last column counts the padding.
    reads = np.zeros((len(cells), geometry.cells + 1))
    np.add.at(reads, (np.arange(len(cells))[:, None], cells), 1)
    reads = reads[:, :-1]

    def adjoint(divisors):
        return (dout.reshape(10, -1).astype(float) / divisors @ reads).reshape(shape)

    sums, norms = flat @ reads.T, np.sqrt(flat**2 @ reads.T)
    means = {}
    for include in (True, False):
        counts = geometry.window_sizes(include).ravel()
        means[include] = (sums / counts).reshape(dout.shape), adjoint(counts)
    return x, dout, means, (norms.reshape(dout.shape), adjoint(norms) * x)


@dtypes
@each_case
def test_sums(case, dtype, pieces, each_isa):
    """Means and norms, and their adjoints, against sums over windows in float64."""
    x, dout, means, (norms, dx_of_norms) = sums_of(case, dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    options = CASES[case][1]
    for include, (expected, dx) in means.items():
        for threads in (1, 2):
            out, cache = avg_pool_forward(x, options, count_include_pad=include, threads=threads)
            np.testing.assert_allclose(out, expected, **tolerance)
            np.testing.assert_allclose(avg_pool_backward(dout, cache), dx, **tolerance)
    out, cache = lp_pool_forward(x, options, threads=2)
    np.testing.assert_allclose(out, norms, **tolerance)
    np.testing.assert_allclose(lp_pool_backward(dout, cache), dx_of_norms, **tolerance)


#: The windows of all cells are smaller here, because powers of five million numbers would take seconds.
SMALL = (9, 20), {"kernel_size": (9, 20), "stride": 1, "pad": (8, 19)}
WINDOWS_OF_POWERS = [SMALL if case[1]["kernel_size"] == (23, 50) else case for case in CASES]


@pytest.mark.parametrize("cut", ["lines", "lines and columns", "whole"])
@pytest.mark.parametrize("p", [1, 3])
@each_case
def test_sums_of_powers(case, p, cut, monkeypatch):
    """Norms with other exponents, and their adjoints, a few lines of a plane at a time."""
    small = {"whole": {}, "lines": {"power_bytes": 1}, "lines and columns": {"power_bytes": 1, "line_bytes": 1}}
    x, norms, dout, dx = sums_of_powers_of(case, p)
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(**small[cut]))
    out, cache = lp_pool_forward(x, WINDOWS_OF_POWERS[case][1], p=p)
    np.testing.assert_allclose(out, norms, rtol=1e-13)
    np.testing.assert_allclose(lp_pool_backward(dout, cache), dx, atol=1e-11)


@functools.lru_cache(maxsize=2)
def sums_of_powers_of(case, p):
    """x and its norms, dout and dx."""
    rng, (spatial, options) = np.random.default_rng(1), WINDOWS_OF_POWERS[case]
    shape = (2, 2, *spatial)
    geometry, cells = table(shape, options)
    x = rng.standard_normal(shape)
    x[0, 0] = 0
    x[0, 1].flat[::2] *= 1e-150  # The powers of these numbers have few digits or none.
    x[1, 0] *= 1e-120
    flat = np.concatenate([x.reshape(4, -1), np.zeros((4, 1))], axis=1)
    windows = np.abs(flat[:, cells])
    peaks = windows.max(axis=-1)
    ratios = windows / np.where(peaks == 0, 1, peaks)[..., None]
    roots = (ratios**p).sum(axis=-1) ** (1 / p)
    dout = rng.standard_normal(geometry.out_shape)
    shares = (ratios / np.where(peaks == 0, 1, roots)[..., None]) ** (p - 1) * np.sign(flat[:, cells])
    expected = np.zeros_like(flat)
    for plane, values in zip(expected, shares * dout.reshape(4, -1)[..., None], strict=True):
        np.add.at(plane, cells, values)
    return x, (peaks * roots).reshape(dout.shape), dout, expected[:, :-1].reshape(shape)


def test_inf_and_nan_in_long_windows(monkeypatch, rng):
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(power_bytes=1))
    x = rng.random((1, 1, 300))
    x[0, 0, [70, 200]] = NAN, INF
    out = lp_pool_forward(x, kernel_size=100, stride=1, p=3)[0][0, 0]
    first = np.arange(201)
    has_nan, has_inf = (first <= 70), (first > 100)
    np.testing.assert_array_equal(np.isnan(out), has_nan)
    np.testing.assert_array_equal(np.isposinf(out), has_inf)


@dtypes
def test_every_window(dtype, rng, monkeypatch, forget):
    """Windows from 1 to all cells, along a row and along a column."""
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(most_taps=0))
    forget()
    for spatial in ((1, 70), (70, 1)):
        x = rng.integers(-3, 4, (1, 1, *spatial)).astype(dtype)
        for k in range(1, 71):
            windows = np.lib.stride_tricks.sliding_window_view(x.ravel(), k)
            kernel = tuple(min(k, n) for n in spatial)
            out, cache = max_pool_forward(x, kernel_size=kernel, stride=1)
            np.testing.assert_array_equal(out.ravel(), windows.max(axis=1))
            np.testing.assert_array_equal(max_pool_indices(cache).ravel(), windows.argmax(axis=1) + np.arange(71 - k))
            np.testing.assert_allclose(
                avg_pool_forward(x, kernel_size=kernel, stride=1)[0].ravel(), windows.mean(axis=1), atol=1e-6
            )


@dtypes
@pytest.mark.parametrize("odd", [INF, -INF, NAN])
def test_one_odd_cell_stays_in_its_windows(odd, dtype, rng):
    x = rng.standard_normal((1, 1, 60, 70)).astype(dtype)
    out, cache = avg_pool_forward(x, kernel_size=(20, 33), stride=1)
    dout = out.copy()
    expected = avg_pool_backward(dout, cache)
    x[0, 0, 30, 40] = dout[0, 0, 30, 20] = odd
    found = avg_pool_forward(x, kernel_size=(20, 33), stride=1)[0]
    sees = np.zeros(out.shape, bool)
    sees[0, 0, 11:31, 8:41] = True
    np.testing.assert_array_equal(np.isfinite(found), ~sees)
    np.testing.assert_array_equal(found[~sees], out[~sees])
    gradient = avg_pool_backward(dout, cache)
    seen = np.zeros(x.shape, bool)
    seen[0, 0, 30:50, 20:53] = True
    np.testing.assert_array_equal(np.isfinite(gradient), ~seen)
    np.testing.assert_array_equal(gradient[~seen], expected[~seen])


def pairwise_bound(n, dtype):
    """The error of np.sum's pairwise sum of n numbers, relative to the sum of their magnitudes."""
    return (16 + 3 + math.log2(max(n / 128, 1)) + 2) * np.finfo(dtype).eps / 2


@dtypes
@pytest.mark.parametrize("k", [3, 6, 17, 32, 33, 99, 255, 999])
@pytest.mark.parametrize("stride", [1, 2, 5, "k"])
def test_means_do_not_drift(k, stride, dtype, rng):
    """Tenths, and noise on a large offset: forward and backward in every kernel."""
    stride = k if stride == "k" else stride
    options = {"kernel_size": k, "stride": stride}
    for x in (np.full((1, 1, k + 5, k + 20), 0.1, dtype), (1e6 + rng.random((1, 1, k + 5, k + 20))).astype(dtype)):
        out = avg_pool_forward(x, options)[0]
        wide = x[0, 0].astype(np.longdouble)
        window = wide[:k, :k]
        exact = math.fsum(window.ravel().astype(float)) / k**2
        assert abs(float(out[0, 0, 0, 0]) - exact) <= pairwise_bound(k * k, dtype) * abs(exact)
        sums = np.pad(wide.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = (np.arange(n) * stride for n in out.shape[2:])
        box = sums[rows + k][:, columns + k] - sums[rows][:, columns + k]
        box -= sums[rows + k][:, columns] - sums[rows][:, columns]
        np.testing.assert_allclose(out[0, 0], (box / k**2).astype(float), rtol=pairwise_bound(k * k, dtype))
        norms = lp_pool_forward(x, options)[0]
        norm = math.sqrt(math.fsum(window.ravel().astype(float) ** 2))
        np.testing.assert_allclose(norms[0, 0, 0, 0], norm, rtol=pairwise_bound(k * k, dtype))


@dtypes
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (9, 1), (60, 1), (60, 3), (101, 7), (250, 2)])
def test_gradients_do_not_drift(k, stride, dtype):
    """Every cell's sum over the windows that contain it, of tenths, whose number is known."""
    options = {"kernel_size": k, "stride": stride}
    n = 2 * k + 3
    x = np.zeros((1, 1, n, n), dtype)
    out, cache = avg_pool_forward(x, options)
    dout = np.full(out.shape, 0.1, dtype)
    seen = np.zeros(n)
    for o in range(out.shape[2]):
        seen[o * stride : o * stride + k] += 1
    expected = np.outer(seen, seen) * float(dout.flat[0]) / k**2
    bound = pairwise_bound(int(seen.max()) ** 2, dtype)
    np.testing.assert_allclose(avg_pool_backward(dout, cache)[0, 0], expected, rtol=bound)
    # One maximum belongs to all windows that contain it.
    x[0, 0, k, k] = 1
    _, cache = max_pool_forward(x, options)
    dx = max_pool_backward(dout, cache)
    np.testing.assert_allclose(dx[0, 0, k, k], seen[k] ** 2 * float(dout.flat[0]), rtol=2 * np.finfo(dtype).eps)
    # The norm of a window of ones is k.
    ones = np.ones_like(x)
    cache = lp_pool_forward(ones, options)[1]
    np.testing.assert_allclose(lp_pool_backward(dout, cache)[0, 0], expected * k, rtol=2 * bound)


@pytest.mark.parametrize("k", [99, 999, 5999])
def test_means_of_tenths(k):
    """A plain running sum would give 0.10001 at 99, 0.10096 at 999, 0.0583 at 5999."""
    x = np.full((1, 1, k, k), 0.1, np.float32)
    for options in (
        {},
        {"pad": 1, "stride": 1, "count_include_pad": False},
        {"pad": 1, "stride": k - 1, "ceil_mode": True},
    ):
        out = avg_pool_forward(x, kernel_size=k, **{"count_include_pad": False, **options})[0]
        assert np.abs(out / np.float32(0.1) - 1).max() < 2e-6
    assert abs(global_avg_pool_forward(x)[0].item() - float(np.float32(0.1))) < 5e-8


def test_a_global_mean_in_float64(rng):
    x = rng.random((1, 1, 3_000_000)) + 1e6
    exact = math.fsum(x.ravel()) / x.size
    assert abs(global_avg_pool_forward(x)[0].item() - exact) <= 2 * np.spacing(exact)


@dtypes
def test_functions_of_windows_do_not_drift(dtype):
    """The adjoint for any function also sums over windows."""
    x = np.zeros((1, 1, 2400), dtype)
    out, cache = pool_forward(
        x, {"kernel_size": 1200, "stride": 1}, lambda w: w.sum(axis=-1), lambda w, _: np.full(w.shape, 0.1, w.dtype)
    )
    dx = pool_backward(np.ones_like(out), cache)
    exact = 1200 * float(dtype(0.1))
    assert abs(float(dx[0, 0, 1199]) - exact) <= pairwise_bound(1200, dtype) * exact


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


PAIRS = [
    (max_pool_forward, max_pool_backward),
    (avg_pool_forward, avg_pool_backward),
    (lp_pool_forward, lp_pool_backward),
]


@pytest.mark.parametrize("maximum", [True, False])
def test_operations(maximum):
    """The steps of a window grow with its logarithm, and the rows of the ring buffers grow with the window."""
    for k in range(1, 3000):
        made = _pool_running.steps(k, 3, maximum)
        assert len(made) <= (math.ceil(math.log2(k)) if maximum else 2 * math.log2(k)) + 1e-9
        if maximum:
            assert sum(shift for _, shift in made) == 3 * (k - 1)
        else:
            # Each number is read once.
            assert sum(shift for _, shift in made) == 3 * (k - 1)


def test_time_has_no_cliff():
    """The cost that chooses the kernel: from 3 cells on, it is at most 1.5 times that of the next smaller window."""
    for maximum, dtype in ((True, np.float32), (False, np.float64)):
        last = math.inf
        for k in range(3, 700):
            geometry = resolve_pool((1, 1, 1024, 1024), kernel_size=k, stride=1, **PLAIN)
            plan = _pool_kernels.plan_for("maximum" if maximum else "mean", geometry, np.dtype(dtype), 2)
            time = plan.time if str(plan) == "axis by axis" else _rows.time(plan.case)
            assert time <= 1.5 * last
            last = time


def test_large_planes_are_cut():
    """Several threads share a single plane, and ring buffers stay small."""
    geometry = resolve_pool((1, 1, 4000, 4000), kernel_size=1000, stride=1, **PLAIN)
    for op in ("maximum", "mean", "mean_gradient"):
        kernel = _pool_kernels.plan_for(op, geometry, np.dtype(np.float32), 2).kernel
        assert kernel.items >= 2 and kernel.workspace * 4 < 12 << 20


def test_pages_of_gradients_stay_small():
    """The buffers for rounding errors of gradient sums take some MiB per thread, whatever the window is."""
    for k in (50, 1000, 4000, 8000):
        geometry = resolve_pool((1, 1, 8000, 8000), kernel_size=k, stride=1, pad=k // 2, dilation=1, ceil_mode=False)
        for dtype in (np.float32, np.float64):
            plan = _pool_kernels.plan_for("maximum_gradient", geometry, np.dtype(dtype), 2).plan
            assert str(plan) == "bands" and plan.kernel.workspace < 12 << 20


@dtypes
def test_gradients_do_not_drift_with_few_pages(dtype, monkeypatch, forget):
    """Buffers are reused for new blocks many times; one cell is the maximum of most windows."""
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(page_bytes=512))
    forget()
    x = np.sort(np.random.default_rng(0).random(160 * 160)).reshape(1, 1, 160, 160).astype(dtype)
    x[0, 0, 80, 80] = 2
    out, cache = max_pool_forward(x, kernel_size=60, stride=1)
    dout = np.full(out.shape, 0.1, dtype)
    expected = np.bincount(max_pool_indices(cache).ravel(), minlength=x.size) * float(dout.flat[0])
    dx = max_pool_backward(dout, cache)
    np.testing.assert_allclose(dx.ravel(), expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("stride", [1, 3])
def test_axes_of_one_cell_are_dropped(stride, rng):
    """A column uses the kernels of a row, and gives the same bits."""
    x = rng.standard_normal((2, 3, 500)).astype(np.float32)
    for shape in ((500, 1), (1, 500), (1, 500, 1), (1, 1, 500), (500, 1, 1)):
        options = {"kernel_size": [40 if n > 1 else 1 for n in shape], "stride": stride}
        geometry = resolve_pool((2, 3, *shape), **{**PLAIN, **options})
        assert geometry.squeezed.x_shape == x.shape
        for forward, backward in PAIRS:
            out, cache = forward(x.reshape(2, 3, *shape), options)
            row, of_row = forward(x, kernel_size=40, stride=stride)
            np.testing.assert_array_equal(out.reshape(row.shape), row)
            np.testing.assert_array_equal(backward(out, cache).reshape(x.shape), backward(row, of_row))
    # A window that reaches into the padding counts the padding's cells.
    out = avg_pool_forward(x[..., None], kernel_size=(1, 3), stride=1, pad=(0, 1))[0]
    np.testing.assert_allclose(out, x[..., None] / 3, rtol=1e-6)


def test_windows_that_step_over_the_input():
    """They are found as in a loop over all windows, but without memory for each window."""
    for size, k, dilation, stride, lo in itertools.product(range(1, 5), (1, 2, 3), range(1, 8), range(1, 5), range(8)):
        axis = Axis(size, k, stride, lo, lo, dilation, 1)
        if lo < axis.extent <= axis.padded:
            axis = dataclasses.replace(axis, out=windows(axis))
            starts = np.arange(axis.out)[:, None] * axis.stride - lo + np.arange(k) * dilation
            assert _steps_over(axis) == (not ((starts >= 0) & (starts < size)).any(axis=1).all())
    axis = Axis(1, 3, 1, 10**9, 10**9, 10**9, 1)
    axis = dataclasses.replace(axis, out=windows(axis))
    assert peak(lambda: _steps_over(axis)) < 1 << 20


def test_results_that_are_too_large_are_refused_by_name():
    x, k = np.ones((1, 1, 1), np.float32), 10**18
    for call in (max_pool_forward, avg_pool_forward, lp_pool_forward):
        with pytest.raises(TooLargeError, match=r"the output of shape \(1, 1, 10+\) and dtype float32 takes 40+ bytes"):
            call(x, kernel_size=k, stride=1, pad=k - 1)
    size = 10**9
    with pytest.raises(TooLargeError, match=r"the image of shape .* takes 8\d+ bytes"):
        col2im(np.ones((1, 1, 1)), (1, 1, size, size), 1, stride=size)


def test_places_past_32_bits(monkeypatch, rng, forget):
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(most_int32_cells=0))
    forget()
    x = rng.integers(0, 4, (2, 3, 30, 40)).astype(np.float32)
    out, cache = max_pool_forward(x, kernel_size=9, stride=1)
    assert cache.indices.dtype == np.int64
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(6, -1), cache.indices.reshape(6, -1), 1), out.reshape(6, -1)
    )
    dx = max_pool_backward(np.ones_like(out), cache)
    assert dx.sum() == out.size


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
@pytest.mark.parametrize("call", ["max_pool_forward", "avg_pool_forward", "max_pool_backward", "lp_pool_backward"])
def test_a_signal_stops_it(call):
    code = f"""
        import signal, time, numpy as np, fastconv
        x = np.zeros((1, 1, 6000, 6000), np.float32)
        forward, backward = "{call}".replace("backward", "forward"), "{call}"
        if forward != backward:
            out, cache = getattr(fastconv, forward)(x, kernel_size=700, stride=1)
        def handler(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            while True:
                if forward == backward:
                    getattr(fastconv, forward)(x, kernel_size=700, stride=1)
                else:
                    getattr(fastconv, backward)(out, cache)
        except KeyboardInterrupt:
            print("stopped")
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ, check=False
    )
    assert found.stdout == "stopped\n", found.stderr
