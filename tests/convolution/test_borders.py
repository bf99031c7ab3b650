"""Borders that repeat cells of the image: extended copies with their adjoint, and `fft`, which needs no copy."""

import functools
import tracemalloc

import numpy as np
import oracle
import pytest
from cases import set_cost
from conftest import forget_geometries

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv._ext.lowering import borders as kernels
from fastconv.convolution import choose as algorithms
from fastconv.convolution.plan import Case
from fastconv.geometry.conv import conv_geometry
from fastconv.lowering import padding as _padding
from fastconv.runtime import memory as _memory, workers as _workers

fft = algorithms.REGISTRY["fft"]

MODES = ("reflect", "replicate", "circular")
DTYPES = [np.float32, np.float64]

#: Images and pads of one to three axes: no padding on a side, more than half of the image, and the legal maximum.
IMAGES = [
    ((7,), [(6, 0)]),
    ((2,), [(1, 1)]),
    ((40,), [(13, 39)]),
    ((5, 6), [(2, 1), (3, 5)]),
    ((33, 4), [(0, 32), (3, 0)]),
    ((4, 5, 3), [(2, 1), (0, 4), (1, 2)]),
    ((2, 2, 70), [(0, 1), (1, 0), (17, 66)]),
]


def padded_cells(x, pads, mode):
    return np.pad(x, [(0, 0), (0, 0), *pads], mode=oracle.NUMPY_MODES[mode])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("mode", MODES)
def test_extended_copies_and_their_adjoint(mode, dtype, threads, isa, rng, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    for spatial, pads in IMAGES:
        x = rng.integers(-99, 99, (2, 3, *spatial)).astype(dtype)
        geometry = conv_geometry(x.shape, (1, 3, *(1,) * len(spatial)), pad=pads, pad_mode=mode)
        extended = _padding.extend(x, geometry, threads)
        np.testing.assert_array_equal(extended, padded_cells(x, pads, mode), strict=True)
        gradient = rng.integers(-99, 99, extended.shape).astype(dtype)
        expected, cells = np.zeros(x.shape), oracle.padded_cells(spatial, pads, mode).ravel()
        np.add.at(expected.reshape(2, 3, -1), (slice(None), slice(None), cells), gradient.reshape(2, 3, -1))
        dx = np.full_like(x, np.nan)
        _padding.fold(gradient, geometry, dx, threads)
        np.testing.assert_array_equal(dx, expected.astype(dtype), strict=True)


def test_a_wide_border_of_one_cell_is_summed_in_double():
    """A float32 sum of a million numbers would drift by one percent."""
    geometry = conv_geometry((1, 1, 1), (1, 1, 1), pad=10**6, pad_mode="replicate")
    dx = np.empty((1, 1, 1), np.float32)
    _padding.fold(np.full(geometry.padded.x_shape, 0.1, np.float32), geometry, dx)
    assert abs(dx.item() / 200_000.1 - 1) < 1e-6


def test_not_finite_cells_of_a_border_reach_only_the_cell_they_show():
    gradient = np.zeros((1, 1, 6, 7), np.float32)
    gradient[0, 0, 0, 3], gradient[0, 0, 4, 0], gradient[0, 0, 4, 4] = np.nan, np.inf, -np.inf
    geometry = conv_geometry((1, 1, 4, 5), (1, 1, 1, 1), pad=1, pad_mode="reflect")
    dx = np.empty((1, 1, 4, 5), np.float32)
    with np.errstate(all="raise"):
        _padding.fold(gradient, geometry, dx)
    expected = np.zeros((4, 5))
    expected[1, 2], expected[3, 1], expected[3, 3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(dx[0, 0], expected)


def test_plans_of_another_geometry_are_refused():
    one, other = (_padding.make_plan(conv_geometry((1, 1, n), (1, 1, 1), pad=2).axes, "circular") for n in (5, 6))
    x, padded = np.ones((1, 1, 5)), np.zeros((1, 1, 9))
    one.extend(x, padded, 1, 0, algorithms_words())
    assert padded.sum() == 9
    for run, source, to in ((other.extend, x, padded), (other.fold, padded, x)):
        with pytest.raises(ValueError, match=r"^the plan of borders does not fit the arrays: .* and x has 5; "):
            run(source, to, 1, 0, algorithms_words())


def test_arrays_of_another_length_are_refused():
    axis = {"size": (1, 1, 3), "padded": (1, 1, 5), "lo": 1}
    arrays = {"firsts": [np.array([0, 1])] * 2, "copies": [np.array([0])] * 2}
    kernels.BordersPlan(**axis, **arrays, cells=[np.array([0]), np.array([0]), np.array([2, 0])])
    with pytest.raises(ValueError, match="an array of borders has 3 indices, but 2 are needed"):
        kernels.BordersPlan(**axis, **arrays, cells=[np.array([0]), np.array([0]), np.array([2, 0, 1])])


def algorithms_words():
    return _workers.serial_queue()


#: (x, w, options) of layers that `fft` supports: odd pads, strides, dilations, groups, kernels as large as the image
#: and larger, and sizes with and without a fast transform.
LAYERS = [
    ((2, 2, 30), (3, 2, 5), {"pad": [(2, 3)]}),
    ((1, 2, 31), (2, 1, 9), {"pad": [(13, 4)], "groups": 2, "stride": 2}),
    ((2, 1, 32), (1, 1, 32), {"pad": [(31, 0)]}),
    ((1, 1, 32), (1, 1, 7), {"pad": [(3, 0)], "stride": 3}),
    ((1, 1, 16), (2, 1, 8), {"pad": [(15, 15)], "dilation": 4}),
    ((1, 1, 12), (1, 1, 12), {"pad": [(5, 6)]}),
    ((2, 2, 12, 15), (2, 2, 5, 7), {"pad": [(2, 2), (3, 3)]}),
    ((2, 4, 11, 13), (6, 2, 3, 5), {"pad": [(2, 1), (3, 7)], "groups": 2, "stride": (2, 1), "dilation": (1, 2)}),
    ((1, 2, 16, 9), (2, 2, 4, 9), {"pad": [(1, 2), (8, 8)], "flip": True}),
    ((1, 1, 16, 18), (1, 1, 15, 17), {"pad": "same"}),
    ((1, 1, 17, 19), (1, 1, 17, 19), {"pad": "same"}),
    ((2, 3, 18, 20), (3, 1, 5, 5), {"pad": "same", "groups": 3, "stride": 2}),
    ((1, 2, 6, 5, 8), (2, 2, 3, 5, 4), {"pad": [(1, 1), (2, 2), (1, 2)]}),
    ((2, 2, 5, 4, 7), (2, 1, 3, 2, 3), {"pad": [(2, 1), (0, 1), (4, 3)], "groups": 2, "stride": (1, 2, 3)}),
    ((1, 2, 6, 6, 6), (1, 2, 6, 6, 6), {"pad": [(5, 0), (0, 5), (3, 2)], "flip": True}),
]


def by_oracle(x, w, b, dout, options):
    geometry = conv_geometry(x.shape, w.shape, **options)
    axes = geometry.axes
    table, out = oracle.windows(
        x.shape[2:],
        w.shape[2:],
        [axis.stride for axis in axes],
        geometry.pads,
        [axis.dilation for axis in axes],
        options["pad_mode"],
    )
    shared = geometry.groups, geometry.flip
    return oracle.conv(x, w, b, table, out, *shared), *oracle.conv_gradients(x, w, dout, table, *shared)


def close(actual, expected, dtype):
    assert actual.dtype == dtype
    bound = {np.float32: 2e-5, np.float64: 1e-13}[dtype]
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max(initial=1e-3)


@pytest.mark.parametrize("algorithm", ["fft", "auto", "implicit"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x", "w", "options"), LAYERS, ids=lambda value: str(value))
def test_against_loops(x, w, options, mode, algorithm, blocks):
    options = {**options, "pad_mode": mode}
    if mode == "reflect":  # The cell at the border is not repeated.
        pads = conv_geometry(x, w, **{**options, "pad_mode": "zeros"}).pads
        options["pad"] = [(min(lo, n - 1), min(hi, n - 1)) for n, (lo, hi) in zip(x[2:], pads, strict=True)]
    for dtype, threads in ((np.float32, 1), (np.float64, 2)):
        *arrays, dout, wanted = example(x, w, dtype, Options(options))
        out, cache = conv_forward(*arrays, options, algorithm=algorithm, threads=threads)
        for actual, expected in zip((out, *conv_backward(dout, cache)), wanted, strict=True):
            close(actual, expected, dtype)


class Options(dict):
    """Options that hash, so that `example` is computed once for all algorithms."""

    def __hash__(self):
        return hash(repr(self))


@functools.lru_cache(maxsize=4)
def example(x, w, dtype, options):
    """x, w, b and dout, and the results of the oracle."""
    rng, out = np.random.default_rng(1), conv_geometry(x, w, **options).out_shape
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in (x, w, w[0], out)]
    return *arrays, by_oracle(*arrays, options)


@pytest.fixture
def always_fft(monkeypatch):
    """'auto' takes `fft` for layers of any size."""
    monkeypatch.setattr(fastconv.convolution.choose, "_FEW", 0)
    set_cost(monkeypatch, "fft", -1.0)
    forget_geometries()
    yield
    forget_geometries()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x", "w", "options"), LAYERS[6:9], ids=lambda value: str(value))
def test_what_is_not_finite_under_auto(x, w, options, mode, always_fft, rng):
    """An exact algorithm recomputes images with an inf or a NaN, from their extended copies."""
    options = {**options, "pad_mode": mode}
    image, weights = (rng.standard_normal(shape).astype(np.float32) for shape in (x, w))
    image[-1, 0].flat[3], image[0, -1].flat[-1] = np.nan, 3e37
    out, cache = conv_forward(image, weights, None, options)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    dout[0, 0].flat[-1], dout[-1, -1].flat[0] = np.inf, 1e37
    found = out, *conv_backward(dout, cache)[:2]
    with np.errstate(all="ignore"):
        expected = by_oracle(image, weights, None, dout, options)[:3]
    for actual, exact in zip(found, expected, strict=True):
        with np.errstate(over="ignore"):
            exact = exact.astype(np.float32)
        for find in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(find(actual), find(exact), find.__name__)
        scale = np.abs(exact[np.isfinite(exact)]).max(initial=1.0)
        np.testing.assert_allclose(actual / scale, exact / scale, rtol=0, atol=1e-5)


@pytest.fixture
def steps(monkeypatch):
    """The calls that extend images and fold gradients, in order."""
    taken = []

    def spy(name, do):
        def call(*arguments):
            taken.append(name)
            return do(*arguments)

        monkeypatch.setattr(_padding, name, call)

    spy("extend", _padding.extend)
    spy("fold", _padding.fold)
    return taken


def test_nothing_is_copied_where_nothing_is_padded(steps):
    x, w = np.ones((2, 1, 5, 5)), np.ones((1, 1, 3, 3))
    out, cache = conv_forward(x, w, None, pad_mode="circular", algorithm="implicit")
    conv_backward(out, cache)
    assert steps == []
    conv(x, w, pad=[(0, 1), (0, 0)], pad_mode="circular", algorithm="implicit")
    assert steps == ["extend"]


#: Whether the gradient of a circular image needs no fold, because the outputs go round the image in whole steps.
ROUND = [
    ((12, 10), (5, 4), {"pad": "same"}, True),
    ((12, 10), (5, 5), {"pad": [(4, 0), (0, 4)], "stride": (3, 2)}, True),
    ((12, 10), (5, 5), {"pad": [(2, 2), (0, 0)]}, True),
    ((12, 10), (3, 3), {"pad": "same", "dilation": (3, 2)}, True),
    ((12, 11), (5, 5), {"pad": "same", "stride": 2}, False),
    ((12, 10), (5, 5), {"pad": 4}, False),
    ((12, 10), (5, 5), {"pad": 1}, False),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("spatial", "kernel", "options", "goes_round"), ROUND)
def test_fft_extends_no_image(spatial, kernel, options, goes_round, mode, steps, rng):
    """`fft` extends no image, and folds gradients only; for circular images it rarely has to."""
    x, w = rng.standard_normal((2, 1, *spatial)), rng.standard_normal((1, 1, *kernel))
    options = {**options, "pad_mode": mode}
    out, cache = conv_forward(x, w, None, options, algorithm="fft")
    conv_backward(out, cache, need_dx=False)
    assert steps == []
    dx, _, _ = conv_backward(out, cache, need_dw=False)
    assert steps == ([] if mode == "circular" and goes_round else ["fold"])
    close(dx, by_oracle(x, w, None, out, options)[1], np.float64)


def test_a_circular_image_of_a_fast_size_is_one_cyclic_transform():
    """A transform of a fast size has no border cells; a prime size needs a transform long enough for the border."""
    fft = algorithms.REGISTRY["fft"]
    for op in ("forward", "backward_data", "backward_weights"):
        for n, cyclic in ((240, True), (241, False)):
            geometry = conv_geometry((1, 1, n, n), (1, 1, n - 1, n - 1), pad="same", pad_mode="circular")
            lengths = fft.plan(Case.of(op, geometry, np.dtype(np.float32), 1)).tiling.lengths
            assert (lengths == (1, n, n)) == cyclic
            assert cyclic or min(lengths[1:]) > n


@pytest.mark.parametrize("mode", MODES)
def test_fft_holds_no_extended_copy(mode, monkeypatch):
    """The image has 64 MB. The workspace of all tiles is bounded, and the result is right."""
    x, w = np.zeros((1, 1, 4096, 4096), np.float32), np.ones((1, 1, 31, 31), np.float32)
    x[0, 0, 0, 0] = 1
    out = np.empty_like(x)
    geometry = conv_geometry(x.shape, w.shape, pad="same", pad_mode=mode)
    for op in ("forward", "backward_weights"):
        plan = fft.plan(Case.of(op, geometry, x.dtype, 2))
        assert plan.reads_borders and plan.workspace_bytes < 32 << 20
    taken = []
    empty = _memory.empty
    monkeypatch.setattr(_memory, "empty", lambda shape, dtype: (taken.append(shape), empty(shape, dtype))[1])
    tracemalloc.start()
    conv(x, w, pad="same", pad_mode=mode, algorithm="fft", threads=2, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20 and taken == []
    corner = {"reflect": 1, "replicate": 256, "circular": 1}[mode]
    assert abs(out[0, 0, 0, 0] - corner) < 1e-3
