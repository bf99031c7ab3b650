"""The errors of `fft`, compared with those of scipy.signal.fftconvolve, and the effect of a click on a quiet tail."""

import functools

import numpy as np
import pytest
import scipy.signal
from cases import set_cost
from conftest import forget_geometries

from fastconv import conv, conv_backward, conv_forward

#: Images and kernels; some need several tiles.
SHAPES = [((3000,), (201,)), ((40_000,), (63,)), ((96, 96), (21, 21)), ((150, 70), (5, 33)), ((20, 24, 22), (5, 5, 5))]


def noise(shape, rng):
    return rng.standard_normal(shape)


def offset(shape, rng):
    return rng.standard_normal(shape) + 1000


def hot_pixel(shape, rng):
    x = rng.standard_normal(shape)
    x[tuple(n // 3 for n in shape)] = 1e6
    return x


def direct(x, w):
    """The valid correlation of x with w in extended precision, summed tap by tap, or output by output if these are fewer."""
    out = np.zeros([n - k + 1 for n, k in zip(x.shape, w.shape, strict=True)], np.longdouble)
    if out.size < w.size:
        for at in np.ndindex(*out.shape):
            out[at] = (w * x[tuple(slice(t, t + n) for t, n in zip(at, w.shape, strict=True))]).sum()
        return out
    for tap in np.ndindex(*w.shape):
        out += w[tap] * x[tuple(slice(t, t + n) for t, n in zip(tap, out.shape, strict=True))]
    return out


def of_scipy(x, w):
    return scipy.signal.fftconvolve(x, np.flip(w), "valid")


def extended(x, kernel):
    return np.pad(x, [(k - 1, k - 1) for k in kernel])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("image", [noise, offset, hot_pixel], ids=lambda function: function.__name__)
@pytest.mark.parametrize(("x", "w"), SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_errors_are_within_four_times_of_scipys(x, w, image, dtype, isa):
    x, w, dout, exacts, scipys = by_peers(x, w, image, dtype)
    out, cache = conv_forward(x[None, None], w[None, None], None, algorithm="fft")
    results = out, *conv_backward(dout[None, None], cache)[:2]
    for actual, exact, peer in zip(results, exacts, scipys, strict=True):
        own, theirs = np.abs(actual[0, 0] - exact), np.abs(peer - exact)
        assert actual.dtype == dtype
        assert own.max() <= 4 * theirs.max()
        assert np.sqrt((own**2).mean()) <= 4 * np.sqrt((theirs**2).mean())


@functools.lru_cache(maxsize=2)
def by_peers(x_shape, w_shape, image, dtype):
    """x, w and dout, and out, dx and dw: exactly, and by SciPy."""
    rng = np.random.default_rng(1)
    x, w = image(x_shape, rng).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    dout = rng.standard_normal([n - k + 1 for n, k in zip(x_shape, w_shape, strict=True)]).astype(dtype)
    # Each op is a valid correlation: x with w; dout, padded with zeros, with the flipped w; x with dout.
    pairs = (x, w), (extended(dout, w_shape), np.flip(w)), (x, dout)
    exacts = [direct(a.astype(np.longdouble), b.astype(np.longdouble)) for a, b in pairs]
    return x, w, dout, exacts, [of_scipy(*pair) for pair in pairs]


@pytest.fixture
def click(rng):
    """A signal with a click and a quiet tail, and a filter, both (1, 1, n) in float32."""
    x = 1e-4 * rng.standard_normal((1, 1, 20_000))
    x[0, 0, 100] = 1e6
    return x.astype(np.float32), rng.standard_normal((1, 1, 1001)).astype(np.float32)


def test_a_click_drowns_the_quiet_tail_of_its_tile(click, monkeypatch):
    """Errors of `fft`, and so of 'auto', are relative to the largest number of a tile; those of `exact` are not."""
    x, w = click
    tail = slice(2000, 3000)  # No tap of these outputs reads the click.
    exact = direct(x[0, 0].astype(np.float64), w[0, 0].astype(np.float64))[tail]
    scale = np.abs(exact).max()

    def error(algorithm):
        return float(np.abs(conv(x, w, algorithm=algorithm)[0, 0, tail] - exact).max() / scale)

    assert error("exact") < 1e-5
    assert error("fft") > 1  # The error is as large as the tail itself.
    forget_geometries()
    set_cost(monkeypatch, "fft", -1.0)
    assert error("auto") == error("fft")
    forget_geometries()
    peers = scipy.signal.fftconvolve(x[0, 0], np.flip(w[0, 0]), "valid")[tail]
    assert np.abs(peers - exact).max() / scale > 1
