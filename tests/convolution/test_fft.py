"""The FFT algorithm: all lengths and tilings, phases, errors against SciPy, images that must not affect each other."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.signal

import fastconv
from fastconv.convolution import choose as ALGORITHMS
from fastconv.convolution.fft import lengths as _fft_lengths, tiling as _fft_tiling
from fastconv.convolution.fft.algorithm import Fft
from fastconv.convolution.fft.tiling import Tuning
from fastconv.convolution.plan import Case
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans

FFT = ALGORITHMS.REGISTRY["fft"]
OPS = ("forward", "backward_data", "backward_weights")
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def run(algorithm, op, geometry, first, second, result, threads=1):
    """Run the plan of an op, and return what it returns."""
    case = Case.of(op, geometry, result.dtype, threads)
    return algorithm.plan(case).run(first, second, None, result)


def ops(x_shape, w_shape, dtype, threads=1, seed=0, algorithm=FFT, **options):
    """Results of all three ops. Result arrays start as NaN, so that unwritten elements show."""
    geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
    x, w, dout = _arrays(geometry, dtype, seed)
    results = [np.full_like(array, np.nan) for array in (dout, x, w)]
    for op, inputs, result in zip(OPS, ((x, w), (dout, w), (x, dout)), results, strict=True):
        assert run(algorithm, op, geometry, *inputs, result, threads) is None
    return results


def _arrays(geometry, dtype, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in (geometry.x_shape, geometry.w_shape, geometry.out_shape)]


@functools.cache
def expected(x_shape, w_shape, dtype, seed=0, **options):
    """Results of the reference in float64, for inputs rounded to `dtype`."""
    geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
    x, w, dout = (array.astype(float) for array in _arrays(geometry, dtype, seed))
    results = [np.empty_like(array) for array in (dout, x, w)]
    for op, inputs, result in zip(OPS, ((x, w), (dout, w), (x, dout)), results, strict=True):
        run(ALGORITHMS.REGISTRY["reference"], op, geometry, *inputs, result)
    return results


def agree(actual, wanted, dtype, times=20):
    for a, b in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=times * np.finfo(dtype).eps * np.abs(b).max(initial=1e-30))


def force(monkeypatch, **changes):
    """Replace fields of every plan that is made."""
    made = _fft_tiling.make_tiling

    def make(*arguments):
        plan = made(*arguments)
        return _fft_tiling.replace(plan, **changes)

    monkeypatch.setattr(_fft_tiling, "make_tiling", make)


@FLOATS
def test_every_radix_and_length(dtype, isa, monkeypatch):
    """Tiles of every fast length up to 130 along one of the axes: with three instruction sets, along each."""
    every = [n for n in range(2, 131) if _fft_lengths.is_fast(n)] + [512, 625, 729, 1000]
    for number, length in enumerate(every, _isa.NAMES.index(isa)):
        taps = max(1, length // 3)
        tile = length - taps + 1
        axis, rank = ((0, 2), (1, 2), (0, 3))[number % 3]
        sizes, kernel = [5] * rank, [2] * rank
        sizes[axis], kernel[axis] = length + tile // 2, taps
        geometry = fastconv.conv_geometry((1, 1, *sizes), (1, 1, *kernel))
        lengths = [6 if size == 5 else length for size in sizes]
        tiles = [-(-(size - k + 1) // (n - k + 1)) for size, k, n in zip(sizes, kernel, lengths, strict=True)]
        cells = [n - k + 1 for n, k in zip(lengths, kernel, strict=True)]
        one = (1,) * (3 - rank)
        with monkeypatch.context() as patch:
            force(patch, lengths=(*one, *lengths), tile=(*one, *cells), tiles=(*one, *tiles))
            plans.clear()
            shapes = geometry.x_shape, geometry.w_shape
            agree(ops(*shapes, dtype), expected(*shapes, dtype), dtype)
        plans.clear()


@FLOATS
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_signals_of_every_tile(dtype, threads, isa, monkeypatch):
    lanes = _fft_tiling._ext.lanes(dtype=0 if dtype is np.float32 else 1, isa=_isa.current)
    for rows, columns in itertools.product((1, 2, 3, 8, 15, 40), (1, 3, 4)):
        length = rows * columns * lanes
        taps = max(1, length // 5)
        shapes = (2, 1, 2 * length + 3), (1, 1, taps)
        tile = length - taps + 1
        with monkeypatch.context() as patch:
            force(
                patch,
                lengths=(1, rows, columns * lanes),
                tile=(1, 1, tile),
                tiles=(1, 1, -(-(2 * length + 4 - taps) // tile)),
            )
            agree(ops(*shapes, dtype, threads), expected(*shapes, dtype), dtype)
        plans.clear()


SHAPES = {
    "image": ((1, 1, 70, 90), (1, 1, 21, 31), {"pad": 9}),
    "few tiles": ((1, 1, 40, 40), (1, 1, 30, 30), {"pad": 20}),
    "depthwise": ((2, 5, 40, 33), (5, 1, 7, 9), {"pad": 3, "groups": 5}),
    "volume": ((1, 1, 20, 18, 22), (1, 1, 5, 3, 7), {"pad": 2}),
    "volumes": ((2, 3, 9, 10, 11), (4, 3, 4, 3, 2), {"pad": 1}),
    "signal": ((1, 1, 3000), (1, 1, 201), {"pad": 100}),
    "channels": ((3, 5, 300), (7, 5, 40), {}),
    "groups": ((2, 6, 30, 20), (4, 3, 9, 5), {"groups": 2, "pad": 4}),
}


@FLOATS
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("way", ["alone", "shared", "blocks"])
def test_ways_to_share_and_to_hold(way, name, dtype, isa, made):
    results = made(fastconv.convolution.fft.algorithm, "_make_tiling")
    x, w, options = SHAPES[name]
    threads = 1 if way == "alone" else 2
    tuning = {
        "alone": Tuning(),
        "shared": Tuning(step=-1e9),  # Makes a tiling with many steps the cheapest.
        "blocks": Tuning(space_bytes=60_000),
    }[way]
    plans.clear()
    wanted = expected(x, w, dtype, **options)
    agree(ops(x, w, dtype, threads, algorithm=Fft(tuning), **options), wanted, dtype, 40)
    plans.clear()
    assert len(results) == 3
    for _, plan in results:
        if way == "shared":
            assert plan.shared == plan.fused == plan.problem.single
        if way == "blocks" and name == "channels":
            assert plan.row_block * plan.column_block < 35 or plan.pair_block < plan.pairs


@FLOATS
def test_phases(dtype, isa, rng):
    """Strides and dilations with and without a common divisor, larger than the kernel and than the image."""
    for stride, dilation, k, pad in itertools.product((1, 2, 3, 4, 7), (1, 2, 3, 6), (1, 2, 3, 5), (0, 3)):
        size = 23
        if dilation * (k - 1) + 1 > size + 2 * pad:
            continue
        shapes = (2, 2, size), (3, 2, k)
        options = {"stride": stride, "dilation": dilation, "pad": pad}
        agree(ops(*shapes, dtype, **options), expected(*shapes, dtype, **options), dtype, 40)
    for options in (
        {"stride": (2, 3), "dilation": (3, 2), "pad": 2},
        {"stride": (4, 1), "dilation": (2, 4), "pad": 5},
        {"stride": 30, "pad": 4},
        {"dilation": 9, "pad": 9},
    ):
        shapes = (2, 2, 17, 19), (2, 1, 3, 2)
        options["groups"] = 2
        agree(ops(*shapes, dtype, **options), expected(*shapes, dtype, **options), dtype, 40)


def test_strides_and_dilations_do_not_transform_zeros():
    """A strided layer costs no more than a layer of the cells that it reads, and dilation adds little."""
    dtype = np.dtype(np.float32)

    def work(op, x, w, **options):
        return FFT.plan(Case.of(op, fastconv.conv_geometry(x, w, **options), dtype, 1)).work

    for op in OPS:
        dense = work(op, (8, 64, 28, 28), (64, 64, 1, 1))
        strided = work(op, (8, 64, 56, 56), (64, 64, 1, 1), stride=2)
        dilated = work(op, (1, 1, 600, 600), (1, 1, 9, 9), dilation=20)
        plain = work(op, (1, 1, 600, 600), (1, 1, 9, 9))
        for kind in ("passes", "moves", "products"):
            assert strided[kind] <= 1.3 * dense[kind], (op, kind)
            assert dilated[kind] <= 4 * plain[kind], (op, kind)


@FLOATS
@pytest.mark.parametrize("offset", [0, 100])
def test_errors_are_at_most_four_times_those_of_scipy(offset, dtype, isa, rng):
    for size, k in (((64, 80), (9, 13)), ((300, 200), (31, 31)), ((20000,), (501,)), ((30, 30, 30), (7, 7, 7))):
        x, w = rng.standard_normal(size) + offset, rng.standard_normal(k)
        x, w = x.astype(dtype), w.astype(dtype)
        exact = scipy.signal.fftconvolve(x.astype(np.longdouble), w.astype(np.longdouble), "same")
        theirs = np.abs(scipy.signal.fftconvolve(x, w, "same") - exact).max()
        flipped = np.ascontiguousarray(np.flip(w))
        for threads in (1, 2):
            ours = fastconv.conv(x[None, None], flipped[None, None], pad="same", algorithm="fft", threads=threads)
            assert np.abs(ours[0, 0] - exact).max() <= 4 * theirs


@FLOATS
def test_tables_are_rounded_once(dtype):
    """The factors of all lengths agree with sines in long double, at angles of at most an eighth of a turn."""
    for length in (3, 5, 8, 60, 125, 384, 1000):
        powers = np.arange(length * 3)
        angle = 2 * np.arccos(np.longdouble(-1)) * (powers % length) / length
        exact = np.cos(angle) - 1j * np.sin(angle)
        roots = _fft_lengths._roots(powers, length)
        assert np.abs(roots - exact).max() <= 2e-16 + 10 * np.finfo(np.longdouble).eps
    for length in (12, 64, 250):
        (table,) = _fft_lengths.factors(((length,),), np.dtype(dtype).itemsize)
        assert table.dtype == dtype and table.size == _fft_lengths.factor_count(length)


def test_images_and_channels_do_not_meet(isa):
    """The result of an image or channel is the same to the last bit, whatever the other ones hold."""
    rng = np.random.default_rng(0)
    for x_shape, w_shape, options in (
        ((3, 1, 40, 50), (1, 1, 11, 11), {"pad": 5}),
        ((3, 4, 40, 50), (4, 1, 11, 11), {"pad": 5, "groups": 4}),
        ((3, 2, 300), (5, 2, 31), {}),
        ((3, 2, 12, 13, 14), (3, 2, 4, 4, 4), {}),
    ):
        x, w = rng.standard_normal(x_shape).astype(np.float32), rng.standard_normal(w_shape).astype(np.float32)
        geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
        dout = rng.standard_normal(geometry.out_shape).astype(np.float32)
        results = []
        for value in (0, 1e30, np.nan):
            loud, dloud, out, dx = x.copy(), dout.copy(), np.empty_like(dout), np.empty_like(x)
            if value:
                loud[1, 0], dloud[1, 0] = value, value
            counts = (
                run(FFT, "forward", geometry, loud, w, out, 2),
                run(FFT, "backward_data", geometry, dloud, w, dx, 2),
            )
            if np.isnan(value):
                assert all(list(count > 0) == [False, True, False] for count in counts)
            groups = options.get("groups", 1)
            kept = [0, 2]
            results.append([out[kept], dx[kept], *([out[1, 1:], dx[1, 1:]] if groups > 1 else [])])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert np.array_equal(a, b)


@FLOATS
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_bits_again(name, dtype, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    x, w, options = SHAPES[name]
    first = ops(x, w, dtype, 2, **options)
    for _ in range(5):
        for a, b in zip(first, ops(x, w, dtype, 2, **options), strict=True):
            assert np.array_equal(a, b)
    agree(ops(x, w, dtype, 1, **options), first, dtype, 40)


def test_what_overflows_is_counted():
    """Results that overflow are counted, also if only the transform overflows: for dw as a whole, else per image."""
    x = np.full((2, 1, 64, 64), 1e36, np.float32)
    x[0] = 1
    geometry, w = fastconv.conv_geometry(x.shape, (1, 1, 3, 3)), np.ones((1, 1, 3, 3), np.float32)
    out, dw = np.empty(geometry.out_shape, np.float32), np.empty_like(w)
    counts = run(FFT, "forward", geometry, x, w, out)
    assert counts[0] == 0 and counts[1] > 0 and np.isfinite(out[0]).all()
    assert run(FFT, "backward_weights", geometry, x, np.ones_like(out), dw)[0] > 0
    assert np.isfinite(fastconv.conv(x, w)).all()


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_memory_is_bounded(threads):
    """The workspace stays within the limit of 'auto', whatever the size of the layer."""
    dtype = np.dtype(np.float32)
    for x, w, options in (
        ((1, 1, 134, 284, 284), (1, 1, 25, 25, 25), {"pad": 12}),
        ((64, 512, 64, 64), (512, 512, 15, 15), {}),
        ((1, 3, 4000, 4000), (3, 3, 129, 129), {"pad": "same"}),
        ((1, 1, 10**7), (1, 1, 4001), {}),
        ((2, 64, 10**5), (64, 64, 1024), {"stride": 3}),
        ((1, 1000, 300, 300), (1000, 1, 31, 31), {"groups": 1000}),
    ):
        geometry = fastconv.conv_geometry(x, w, **options)
        for op in OPS:
            assert FFT.plan(Case.of(op, geometry, dtype, threads)).workspace_bytes <= 32 << 20, (x, op)


def test_a_kernel_too_large_is_refused_before_memory_is_taken():
    for x, w, options in (((1, 1, 1 << 28), (1, 1, 1 << 27), {}), ((1, 1, 9, 9), (1, 1, 20000, 20000), {"pad": 20000})):
        geometry = fastconv.conv_geometry(x, w, **options)
        for op in OPS:
            with pytest.raises(ValueError, match=r"algorithm 'fft' cannot do this .*takes? \d+ bytes.*'exact'"):
                ALGORITHMS.choose(Case.of(op, geometry, np.dtype(np.float32), 1), "fft")
    # The taps are far apart, but there are few of them.
    spread = fastconv.conv_geometry((1, 1, 9), (1, 1, 2), dilation=1 << 29, pad=1 << 29)
    assert FFT.unsupported(Case.of("forward", spread, np.dtype(np.float32))) is None


def test_few_plans_are_looked_at(monkeypatch):
    """Few plans are considered, because each new geometry asks every algorithm for its work."""
    looked_at = []
    estimate = _fft_tiling._estimate
    monkeypatch.setattr(_fft_tiling, "_estimate", lambda *a: looked_at.append(a) or estimate(*a))
    for size, k in (((512, 512), 31), ((2048, 2048), 3), ((4000, 3000), 129), ((10**6,), 4001), ((134, 284, 284), 25)):
        del looked_at[:]
        geometry = fastconv.conv_geometry((1, 1, *size), (1, 1, *[k] * len(size)))
        for itemsize in (4, 8):
            assert _fft_tiling.make_tiling("forward", geometry, itemsize, 2) is not None
        assert 2 <= len(looked_at) <= 320


def test_lengths():
    for n in (1, 2, 7, 11, 100, 1023, 4097):
        for lanes in (1, 4, 16):
            length = _fft_lengths.fast_length(n, lanes)
            assert n <= length <= 1.2 * n + 2 and _fft_lengths.is_fast(length)
            assert math.prod(_fft_lengths.radices(length)) == length
            order = _fft_lengths._order(length)
            assert sorted(order) == list(range(length))
    assert not _fft_lengths.is_fast(7) and not _fft_lengths.is_fast(22)


@pytest.mark.parametrize("shape", [(257, 263), (1021,), (31, 33, 35)], ids=["image", "signal", "volume"])
def test_gradients_of_circular_images_are_the_same_bits_each_time(shape, rng):
    """Each cell is written by one tile only, although the last tile reaches round to the first one."""
    k = (31,) if len(shape) < 3 else (5,)
    x, w = rng.standard_normal((1, 1, *shape)), rng.standard_normal((1, 1, *k * len(shape)))
    options = {"pad": k[0] // 2, "pad_mode": "circular", "algorithm": "fft", "threads": 2}
    out, cache = fastconv.conv_forward(x, w, None, **options)
    assert len({fastconv.conv_backward(out, cache, need_dw=False)[0].tobytes() for _ in range(40)}) == 1


def test_phases_too_far_apart_are_refused(rng):
    x, w = rng.standard_normal((1, 1, 12, 12)), rng.standard_normal((1, 1, 3, 3))
    with pytest.raises(ValueError, match="cells have indices up to 3000000000013000000000000"):
        far = {"stride": (10**12 + 1, 1), "dilation": (10**12, 1), "pad": [(10**13, 10**13), (0, 0)]}
        fastconv.conv(x, w, **far, algorithm="fft")
