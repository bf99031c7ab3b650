"""Counting of zeros among the weights: the density it finds, when it happens, and what 'auto' then takes."""

import math

import numpy as np
import pytest
from cases import set_cost
from conftest import forget_geometries, record_sparse

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_transpose
from fastconv.convolution import density as _density


def diagonal(k, rank):
    w = np.zeros((k,) * rank)
    w[(np.arange(k),) * rank] = np.arange(1, k + 1) / k
    return w


def corners(k, rank):
    w = np.zeros((k,) * rank)
    w[np.ix_(*[[0, -1]] * rank)] = 0.5
    return w


def ring(k, rank):
    far = sum(np.meshgrid(*[(np.arange(k) - (k - 1) / 2) ** 2] * rank, indexing="ij")) ** 0.5
    return (np.abs(far - (k - 1) / 2) < 0.6) * 1.0


def comb(k, rank):
    w = np.zeros((k,) * rank)
    w[::25] = 0.25
    return w


def frame(k, rank):
    """Edges of a box."""
    at = np.indices((k,) * rank)
    return (((at == 0) | (at == k - 1)).sum(axis=0) >= rank - 1) * 0.125


#: Kernels with few nonzero weights, and images large enough for some millions of products.
PATTERNS = {
    "diagonal": (diagonal(31, 2), (200, 200)),
    "corners": (corners(15, 2), (200, 200)),
    "ring": (ring(25, 2), (160, 160)),
    "comb": (comb(501, 1), (40_000,)),
    "long comb": (comb(5001, 1), (20_000,)),
    "frame": (frame(9, 3), (40, 40, 40)),
}


@pytest.fixture
def taken(monkeypatch):
    """The ops that the algorithm 'sparse' computes, in order.

    Faster algorithms are disabled: transforms, and `separable`, because the corners are outer products.
    """
    ops = []
    set_cost(monkeypatch, "fft", math.inf)
    monkeypatch.setattr(fastconv.convolution.rank_one, "pays", lambda *_: None)
    forget_geometries()
    record_sparse(monkeypatch, ops)
    yield ops
    forget_geometries()


def inputs(pattern, dtype, rng):
    w, shape = PATTERNS[pattern]
    x = rng.standard_normal((1, 1, *shape)).astype(dtype)
    return x, w[None, None].astype(dtype)


def by_taps(x, w, stride=1):
    """The output of a one-channel kernel on padded images: one slice for each weight that is not zero."""
    outs = [(size - k) // stride + 1 for size, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    total = 0
    for at in zip(*np.nonzero(w[0, 0]), strict=True):
        cells = tuple(slice(i, i + (n - 1) * stride + 1, stride) for i, n in zip(at, outs, strict=True))
        total = total + w[(0, 0, *at)].astype(float) * x[(..., *cells)]
    return total


def close(found, expected, dtype):
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=(2e-5 if dtype == np.float32 else 1e-12) * scale)


MODES = ["zeros", "reflect", "replicate", "circular"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_few_weights_on_a_large_image_are_taken_one_by_one(pattern, mode, taken, rng):
    """float32 or float64, so that each goes with every mode and with every pattern."""
    dtype = (np.float32, np.float64)[(MODES.index(mode) + list(PATTERNS).index(pattern)) % 2]
    x, w = inputs(pattern, dtype, rng)
    options = {"pad": "same", "pad_mode": mode}
    out, cache = conv_forward(x, w, None, **options)
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx, *_ = conv_backward(dout, cache, need_dw=False)
    assert set(taken) == {"forward", "backward_data"}
    padded = [(0, 0), (0, 0), *[(k // 2, k // 2) for k in w.shape[2:]]]
    wide = np.pad(x, padded, mode={"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(mode, mode))
    expected = by_taps(wide, w)
    close(out, expected, dtype)
    # <dout, conv(x)> = <dx, x>
    products = np.vdot(dout.astype(float), expected), np.vdot(dx.astype(float), x.astype(float))
    assert math.isclose(*products, abs_tol=1e-5 * np.linalg.norm(dx) * np.linalg.norm(x))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients_of_few_weights(pattern, taken, rng):
    """dw of all weights is dense.

    With `pruned`, only the entries of weights that are not zero are computed; the others are 0.
    """
    x, w = inputs(pattern, np.float64, rng)
    out, cache = conv_forward(x, w, None, pad="same")
    dout = rng.standard_normal(out.shape)
    taken.clear()
    dw = conv_backward(dout, cache, need_dx=False)[1]
    assert not taken and dw.all()
    taken.clear()
    kept = conv_backward(dout, cache, need_dx=False, pruned=True)[1]
    assert taken == ["backward_weights"]
    close(kept, np.where(w == 0, 0, dw), np.float64)


def test_other_ways_in(taken, rng):
    """True convolutions, strides, several filters and transposed convolutions count zeros, too."""
    x, w = inputs("diagonal", np.float64, rng)
    out = conv(x, w, stride=2, flip=True)
    assert taken == ["forward"]
    close(out, by_taps(x, w[:, :, ::-1, ::-1], 2), np.float64)
    taken.clear()
    some = np.concatenate([w, 2 * w, 0 * w])
    out = conv(x, some, [1.0, 2.0, 3.0])
    assert taken == ["forward"] and (out[:, 2] == 3).all()
    close(out[:, 1] - 2, 2 * (out[:, 0] - 1), np.float64)
    taken.clear()
    back = conv_transpose(out[:, :1], w, [0.5])
    assert taken == ["backward_data"]
    close(back - 0.5, conv_transpose(out[:, :1], w, algorithm="reference"), np.float64)


def test_dense_kernels_and_small_images_are_not_taken_one_by_one(taken, rng):
    x, w = inputs("ring", np.float64, rng)
    conv(x, w + 1)
    conv(x, w, algorithm="exact")
    conv(x[..., :26, :26], w)
    conv(x, np.array([[[[0.0, 1, 2], [3, 4, 5], [6, 7, 8]]]]))
    assert not taken


def test_weights_are_looked_at_in_every_call(taken, rng):
    """Zeros are counted in every call, because an array may hold other numbers in the next one."""
    x, w = inputs("ring", np.float32, rng)
    conv(x, w)
    assert taken == ["forward"]
    kept = w.copy()
    w += 1
    taken.clear()
    conv(x, w)
    assert not taken
    w -= 1
    w[kept == 0] = 0
    taken.clear()
    conv(x, w)
    assert taken == ["forward"]


def test_what_is_worth_a_look():
    """The number of products decides, not the number of weights."""
    assert _density.worth_a_look((1, 1, 31, 31), 1_000_000)
    assert _density.worth_a_look((1, 1, 15, 15), 512 * 512)
    assert _density.worth_a_look((1, 1, 3, 3), 1 << 20)
    assert _density.worth_a_look((2, 2, 17, 3, 7), 2 * 4095)
    assert not _density.worth_a_look((1, 1, 3, 3), 1000)
    assert not _density.worth_a_look((64, 64, 3, 3), 100)
    assert not _density.worth_a_look((0, 1, 3, 3), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 961, 1024, 1025, 2048, 4096])
def test_few_weights_are_counted(count, dtype, rng):
    for share in (0, 0.001, 0.1, 0.5):
        w = np.where(rng.permutation(count) < share * count, rng.choice([-1e-40, 1, np.nan, np.inf], count), 0)
        w = w.astype(dtype)
        expected = math.ceil(np.count_nonzero(w) * _density.STEPS / count) / _density.STEPS
        assert _density.density(w) == (expected if expected <= 0.7 else 1.0)
    assert _density.density(np.full(count, 1e-45, dtype)) == 1.0
    assert _density.density(np.full(count, -0.0, dtype)) == 0.0


@pytest.mark.parametrize("what", ["single weights", "taps", "channels", "filters"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_the_sample_tells_the_density(what, share, dtype, rng):
    w = np.ones((64, 48, 3, 3), dtype)
    kept = {
        "single weights": rng.random(w.shape),
        "taps": rng.random(w.shape[2:]),
        "channels": rng.random(w.shape[1])[:, None, None],
        "filters": rng.random(w.shape[0])[:, None, None, None],
    }[what]
    w *= kept >= share
    density = np.count_nonzero(w) / w.size
    found = _density.density(w)
    assert abs(found - density) < 0.05 or (density > 0.65 and found == 1.0)


def test_the_sample_reads_within_the_weights():
    """The sample never reads past the end of the weights, which would crash where memory ends."""
    for count in (4097, 5000, 1 << 20):
        w = np.zeros(count + 1)
        w[-1] = 1
        assert _density.density(w[:-1]) == 0.0
        assert _density.density(np.ones(count, np.float32)) == 1.0


def test_explain_says_what_auto_takes(taken, rng):
    """The arrow of explain agrees with 'auto' for the densities that counting finds."""
    for pattern, (kernel, shape) in PATTERNS.items():
        for threads in (1, 2):
            x, w = inputs(pattern, np.float32, rng)
            density = _density.density(w)
            text = fastconv.explain(x.shape, w.shape, density=density, pad="same", threads=threads)
            (arrow,) = [line for line in text.splitlines()[:-1] if line.startswith("-> ")]
            taken.clear()
            conv(x, w, pad="same", threads=threads)
            assert (arrow.split()[1] == "sparse") == bool(taken), (pattern, kernel.shape, shape)


@pytest.mark.parametrize(
    ("density", "threads"), [(0.0, 1), (0.01, 1), (0.01, 2), (0.2, 2), (0.6, 1), (0.8, 2), (1.0, 2)]
)
@pytest.mark.parametrize("op", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize(
    "layer",
    [((1, 1, 600, 600), (1, 1, 21, 21)), ((1, 64, 28, 28), (64, 64, 3, 3)), ((1, 1, 30, 30), (1, 1, 5, 5))],
    ids=["image", "layer", "small"],
)
def test_the_arrow_is_what_auto_takes_of_every_density(layer, op, density, threads, taken, rng):
    x_shape, w_shape = layer
    text = fastconv.explain(x_shape, w_shape, op=op, density=density, threads=threads)
    arrow, last = (line for line in text.splitlines() if line.startswith("-> "))
    assert last.startswith(f"-> {arrow.split()[1]}, ")
    x, w = rng.standard_normal(x_shape, np.float32), np.ones(w_shape, np.float32)
    w.reshape(-1)[rng.permutation(w.size)[math.ceil(w.size * density) :]] = 0
    out, cache = conv_forward(x, w, None, threads=threads)
    taken[:] = taken if op == "forward" else []
    if op != "forward":
        conv_backward(out, cache, need_dx=op == "backward_data", need_dw=op == "backward_weights", pruned=True)
    assert (arrow.split()[1] == "sparse") == bool(taken)
    if "sparse" in arrow:  # The arrow marks the cheapest of the algorithms shown.
        assert arrow.split()[2] == "1.00"
