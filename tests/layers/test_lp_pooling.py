"""Pooling by norms and by any function: against loops over windows, PyTorch, other poolings and differences."""

import functools

import numpy as np
import pytest
from cases import in_case
from test_pooling import CASES, geometry_and_windows

import fastconv
from fastconv import (
    avg_pool_backward,
    avg_pool_forward,
    conv,
    downsample,
    lp_pool_backward,
    lp_pool_forward,
    max_pool_backward,
    max_pool_forward,
    pool_backward,
    pool_forward,
)
from fastconv.runtime import isa as _isa

cases = pytest.mark.parametrize(("shape", "options"), CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


@pytest.fixture(autouse=True)
def threads(blocks):
    return 1 if blocks == "as they are" else 3


def windows_of(x, table):
    """The windows (N, C, outputs, taps) in float64, with zeros in the padding."""
    flat = x.reshape(*x.shape[:2], int(np.prod(x.shape[2:]))).astype(float)
    flat = np.concatenate([flat, np.zeros((*x.shape[:2], 1))], axis=2)
    return flat[:, :, table]


def back(shares, table, shape):
    """The adjoint of `windows_of`."""
    cells = int(np.prod(shape[2:]))
    flat = np.zeros((*shape[:2], cells + 1))
    np.add.at(flat, (slice(None), slice(None), table), shares)
    return flat[:, :, :cells].reshape(shape)


ISAS = _isa.usable()


@pytest.mark.parametrize(
    ("kernels", "isa", "blocks"),
    [
        *(("vectors", isa, blocks) for isa in ISAS for blocks in ("as they are", "tiny")),
        # NumPy computes these powers. Kernels sum them; test_pool_running.py tests those with all instruction sets.
        *(("general", ISAS[0], "tiny"), ("general", ISAS[-1], "as they are")),
        *(("ratios", ISAS[0], "as they are"), ("ratios", ISAS[-1], "tiny")),
    ],
    indirect=["isa", "blocks"],
)
@dtypes
@pytest.mark.parametrize("name", CASES)
def test_lp(name, dtype, kernels, threads, isa, monkeypatch, forget):
    if kernels != "vectors":
        monkeypatch.setattr("fastconv.layers.pool.lp_pooling._OWN_KERNELS", 0.0)
    if kernels == "ratios":
        # Simulates powers that are never normal numbers.
        monkeypatch.setattr("fastconv.layers.pool.powers._SUMS", (np.inf, np.inf))
        monkeypatch.setattr("fastconv.layers.pool.powers._FACTORS", (np.inf, np.inf))
    forget()
    options, (x, dout, results) = CASES[name][1], norms_of(name, dtype)
    exact, summed = ((2e-6, 1e-6), 1e-5) if dtype == np.float32 else ((1e-13, 1e-13), 1e-12)
    for p, (norms, wanted) in results.items():
        with in_case(f"p = {p}"):
            out, cache = lp_pool_forward(x, options, p=p, threads=threads)
            assert out.dtype == dtype and out.shape == norms.shape
            np.testing.assert_allclose(out, norms, *exact)
            dx = lp_pool_backward(dout, cache)
            assert dx.dtype == dtype
            np.testing.assert_allclose(dx, wanted, atol=summed)
            assert not dx[:, 0].any()


@functools.lru_cache(maxsize=2)
def norms_of(name, dtype):
    """x and dout; and for each p the norms of the windows and the gradient."""
    shape, options = CASES[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(dtype)
    x[:, 0] = 0  # The norm of every window of these images is 0.
    x.flat[::7] = 0
    geometry, table = geometry_and_windows(shape, options)
    windows, dout = windows_of(x, table), rng.standard_normal(geometry.out_shape).astype(dtype)
    results = {}
    for p in (1, 2, 3, 2.5, np.float32(1.5)):
        norms = (np.abs(windows) ** float(p)).sum(axis=-1) ** (1 / float(p))
        ratio = np.abs(windows) / np.where(norms == 0, 1, norms)[..., None]
        shares = np.sign(windows) * ratio ** (float(p) - 1) * dout.reshape(norms.shape)[..., None]
        results[p] = norms.reshape(geometry.out_shape), back(shares, table, shape)
    return x, dout, results


@pytest.mark.parametrize("length", [1, 7, 40, 600])
def test_lengths_and_long_windows(length, rng):
    """Rows with every remainder after whole vectors, and windows that have no kernel of their own."""
    x = rng.standard_normal((1, 3, 5, length)).astype(np.float32)
    for kernel, stride in (((2, 1), 1), ((2, length), 1), ((5, length), 1), ((1, min(3, length)), 3)):
        out, cache = lp_pool_forward(x, kernel_size=kernel, stride=stride)
        same, other = pool_forward(
            x,
            {"kernel_size": kernel, "stride": stride},
            lambda w: np.sqrt((w.astype(float) ** 2).sum(axis=-1)),
            lambda w, o: w / o[:, None],
        )
        np.testing.assert_allclose(out, same, rtol=1e-6)
        np.testing.assert_allclose(lp_pool_backward(out, cache), pool_backward(out, other), rtol=1e-4, atol=1e-5)


def test_small_and_large_numbers():
    for p in (3, 7.5):
        x = np.float32([[[1e-12, 1e-12, 1e12, 1e12, 0, 0]]])
        out, cache = lp_pool_forward(x, kernel_size=2, p=p)
        np.testing.assert_allclose(out[0, 0], np.array([1e-12, 1e12, 0]) * 2 ** (1 / p), rtol=1e-6)
        dx = lp_pool_backward(np.ones_like(out), cache)
        np.testing.assert_allclose(dx[0, 0], np.array([1, 1, 1, 1, 0, 0]) * 2 ** (1 / p - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "size", "p"),
    [
        (np.float64, 0.1, 400),
        (np.float64, 5, 500),
        (np.float64, 100, 200),
        (np.float64, 1e-320, 3),
        (np.float64, 1e300, 2.0001),
        (np.float32, 1e-36, 9),
        (np.float32, 1e36, 10),
        (np.float32, 1e-30, 2.0001),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_powers_that_no_double_holds(dtype, size, p, stride, threads, rng):
    """Windows with powers beyond the range of float64 share cells with ordinary windows and with windows of zeros."""
    x = rng.uniform(0.5, 1, (2, 3, 8, 6)) * rng.choice([-1, 1], (2, 3, 8, 6))
    x[0, 1] *= size
    x[1, :, :4] *= size
    x[1, :, 5:] = 0
    x = x.astype(dtype)
    options = {"kernel_size": (3, 2), "stride": stride, "pad": 1}
    geometry, table = geometry_and_windows(x.shape, options)
    windows = windows_of(x, table)
    peaks = np.abs(windows).max(axis=-1)
    scaled = np.abs(windows) / np.where(peaks == 0, 1, peaks)[..., None]
    roots = (scaled**p).sum(axis=-1) ** (1 / p)
    out, cache = lp_pool_forward(x, options, p=p, threads=threads)
    tiny, eps = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).eps
    np.testing.assert_allclose(out, (peaks * roots).reshape(geometry.out_shape), rtol=4 * eps, atol=tiny)
    dout = rng.standard_normal(out.shape).astype(dtype)
    shares = np.sign(windows) * (scaled / np.where(peaks == 0, 1, roots)[..., None]) ** (p - 1)
    expected = back(shares * dout.reshape(peaks.shape)[..., None], table, x.shape)
    # The norm is rounded before it is raised to p - 1; a subnormal norm has few digits.
    rounding = p * (eps if size > np.finfo(dtype).tiny else tiny / size)
    np.testing.assert_allclose(lp_pool_backward(dout, cache), expected, atol=10 * rounding)


def test_range_of_squares():
    """The kernels for p=2 sum squares in the dtype of x, as documented."""
    for dtype, least, most in ((np.float32, 1.1e-19, 1.8e19), (np.float64, 1.5e-154, 1.3e154)):
        x = np.array([[[least, 0, most, 0, 1.1 * most, 0]]], dtype)
        out, cache = lp_pool_forward(x, kernel_size=2)
        np.testing.assert_allclose(out[0, 0, :2], x[0, 0, :4:2], rtol=1e-6)
        assert np.isinf(out[0, 0, 2]) and lp_pool_backward(np.ones_like(out), cache)[0, 0, 4] == 0


def test_nan_and_inf_show():
    x = np.array([[[1.0, np.nan, np.inf, 2.0, 3.0, 4.0]]])
    for p in (1, 2, 3):
        out, _ = lp_pool_forward(x, kernel_size=2, p=p)
        assert np.isnan(out[0, 0, 0]) and out[0, 0, 1] == np.inf and np.isfinite(out[0, 0, 2])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_torch(rank, p, torch, rng):
    x = rng.standard_normal((2, 3, *(9, 8, 10)[:rank]))
    for kernel, stride, ceil in ((2, 2, False), (3, 2, False), (3, 1, False)):
        leaf = torch.tensor(x, requires_grad=True)
        # PyTorch takes powers without the absolute value, so its results differ for odd powers.
        call = getattr(torch.nn.functional, f"lp_pool{rank}d")
        expected = call(leaf.abs(), float(p), kernel, stride, ceil)
        out, cache = lp_pool_forward(x, kernel_size=kernel, stride=stride, ceil_mode=ceil, p=p)
        np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-10)
        dout = rng.standard_normal(out.shape)
        (wanted,) = torch.autograd.grad(expected, leaf, torch.tensor(dout))
        np.testing.assert_allclose(lp_pool_backward(dout, cache), wanted.numpy(), atol=1e-10)


@dtypes
@cases
def test_any_function(shape, options, dtype, rng):
    """A weighted sum, which depends on the order of the cells, followed by a nonlinear function."""
    x = rng.standard_normal(shape).astype(dtype)
    geometry, table = geometry_and_windows(shape, options)
    weights = rng.standard_normal(table.shape[1])

    def weigh(windows):
        assert windows.dtype == dtype and windows.ndim == 2 and windows.shape[1] == len(weights)
        result = np.tanh(windows @ weights)
        windows[...] = np.nan  # The function may write to its windows.
        return result

    def derivative(windows, out):
        assert out.shape == windows.shape[:1]
        return (1 - out[:, None] ** 2) * weights

    out, cache = pool_forward(x, options, weigh, derivative)
    expected = np.tanh(windows_of(x, table) @ weights)
    atol = 1e-5 if dtype == np.float32 else 1e-12
    assert out.dtype == dtype and out.shape == geometry.out_shape
    np.testing.assert_allclose(out, expected.reshape(out.shape), atol=atol)
    dout = rng.standard_normal(out.shape).astype(dtype)
    shares = ((1 - expected**2) * dout.reshape(expected.shape))[..., None] * weights
    dx = pool_backward(dout, cache)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, back(shares, table, shape), atol=atol)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 2}, {"kernel_size": (3, 2), "stride": (1, 2), "dilation": 2}], ids=str
)
def test_any_function_can_be_the_others(options, rng):
    x = rng.standard_normal((2, 3, 9, 8))

    def winner(windows, out):
        return np.eye(windows.shape[1])[windows.argmax(axis=1)]

    pairs = [
        (max_pool_forward, max_pool_backward, lambda w: w.max(axis=-1), winner),
        (avg_pool_forward, avg_pool_backward, lambda w: w.mean(axis=-1), lambda w, _: np.full(w.shape, 1 / w.shape[1])),
        (lp_pool_forward, lp_pool_backward, lambda w: np.linalg.norm(w, axis=-1), lambda w, out: w / out[:, None]),
    ]
    for forward, backward, fn, fn_grad in pairs:
        expected, kept = forward(x, options)
        out, cache = pool_forward(x, options, fn, fn_grad)
        np.testing.assert_allclose(out, expected, atol=1e-13)
        dout = rng.standard_normal(out.shape)
        np.testing.assert_allclose(pool_backward(dout, cache), backward(dout, kept), atol=1e-13)


def test_median(rng):
    from scipy import ndimage

    x = rng.standard_normal((1, 2, 7, 9))
    out, _ = pool_forward(x, {"kernel_size": 3, "stride": 1, "pad": 1}, lambda w: np.median(w, axis=-1))
    np.testing.assert_allclose(out[0, 1], ndimage.median_filter(x[0, 1], 3, mode="constant"))


def test_identities(rng):
    """The mean is a convolution with a uniform kernel. Pooling with a stride is pooling with stride 1, downsampled."""
    x = rng.standard_normal((2, 3, 9, 8))
    uniform = np.full((3, 1, 3, 2), 1 / 6)
    out, cache = avg_pool_forward(x, kernel_size=(3, 2), stride=2, pad=1)
    np.testing.assert_allclose(out, conv(x, uniform, groups=3, stride=2, pad=1), atol=1e-12)
    dout = rng.standard_normal(out.shape)
    _, kept = fastconv.conv_forward(x, uniform, None, groups=3, stride=2, pad=1)
    np.testing.assert_allclose(avg_pool_backward(dout, cache), fastconv.conv_backward(dout, kept)[0], atol=1e-12)
    window = {"kernel_size": (3, 2), "pad": 1}
    for forward in (max_pool_forward, avg_pool_forward, lp_pool_forward):
        dense, sparse = forward(x, stride=1, **window)[0], forward(x, stride=(2, 3), **window)[0]
        np.testing.assert_allclose(downsample(dense, (2, 3)), sparse, atol=1e-14)
    spread = [pool_forward(x, {**window, "stride": s}, lambda w: np.ptp(w, axis=-1))[0] for s in (1, (2, 3))]
    assert np.array_equal(downsample(spread[0], (2, 3)), spread[1])
    # The L2 norm is the root of the convolution of the squares.
    ones = np.ones((3, 1, 3, 2))
    np.testing.assert_allclose(lp_pool_forward(x, stride=1, **window)[0] ** 2, conv(x**2, ones, groups=3, pad=1))


def test_layouts(rng):
    from cases import variants

    x, window = rng.standard_normal((2, 3, 7, 6)), {"kernel_size": 3, "stride": 2, "pad": 1}
    out, cache = lp_pool_forward(x, window)
    dx = lp_pool_backward(out, cache)
    for name, other in variants(x).items():
        again, cache = lp_pool_forward(other, window)
        assert np.array_equal(again, out), name
        assert np.array_equal(lp_pool_backward(variants(out)[name], cache), dx), name
        ranges = [pool_forward(a, window, lambda w: np.ptp(w, axis=-1))[0] for a in (other, x)]
        assert np.array_equal(*ranges), name
    assert lp_pool_forward(np.ones((1, 1, 4), int), kernel_size=2)[0].dtype == np.float64


X = np.ones((1, 2, 6, 6))
WINDOW = {"kernel_size": 2}
BAD = [
    (lambda: lp_pool_forward(X, WINDOW, p=0.5), ValueError, "p must be a finite number >= 1, got 0.5"),
    (lambda: lp_pool_forward(X, WINDOW, p=np.inf), ValueError, "got inf; for p = inf, call max_pool_forward"),
    (lambda: lp_pool_forward(X, WINDOW, p=np.nan), ValueError, "p must be a finite number"),
    (lambda: lp_pool_forward(X, WINDOW, p="2"), TypeError, "p must be a finite number >= 1, got '2'"),
    (lambda: lp_pool_forward(X, WINDOW, p=True), TypeError, "p must be a finite number >= 1, got True"),
    (lambda: lp_pool_forward(X, WINDOW, q=2), TypeError, "unknown option 'q'; known are kernel_size.* p"),
    (lambda: max_pool_forward(X, WINDOW, p=2), TypeError, "unknown option 'p'"),
    (lambda: lp_pool_forward(X, WINDOW, pad=2), ValueError, "smaller than the 2 cells"),
    (lambda: lp_pool_backward(X, lp_pool_forward(X, WINDOW)[1]), ValueError, "dout has shape"),
    (lambda: lp_pool_backward(X, max_pool_forward(X, WINDOW)[1]), TypeError, "cache must come from lp_pool_forward"),
    (
        lambda: lp_pool_backward(X, lp_pool_forward(X, WINDOW)[1]._replace(out=X)),
        ValueError,
        "which lp_pool_forward did not put there",
    ),
    (lambda: pool_forward(X, WINDOW, None), TypeError, r"fn must be a function, called as fn\(windows\), got None"),
    (
        lambda: pool_forward(X, WINDOW, np.sum, 3),
        TypeError,
        r"fn_grad must be None or a function, called as fn_grad\(windows, out\)",
    ),
    (
        lambda: pool_forward(X, WINDOW, np.sum),
        ValueError,
        r"fn must return shape \(\d+,\) for windows of shape \(\d+, 4\), got shape \(\)",
    ),
    (lambda: pool_forward(X, WINDOW, np.median), ValueError, "reduce the last axis, as in lambda w: np.median"),
    (
        lambda: pool_forward(X, WINDOW, lambda w: w.sum(-1) * 1j),
        TypeError,
        "fn must return real numbers, got dtype complex128",
    ),
    (lambda: pool_forward(X, {}, np.sum), TypeError, "needs kernel_size"),
    (
        lambda: pool_backward(X[..., ::2, ::2], pool_forward(X, WINDOW, lambda w: w.sum(-1))[1]),
        ValueError,
        r"cache holds no fn_grad; pass fn_grad",
    ),
    (
        lambda: pool_backward(X[..., ::2, ::2], pool_forward(X, WINDOW, lambda w: w.sum(-1), lambda w, o: o)[1]),
        ValueError,
        r"fn_grad must return shape \(\d+, 4\) for windows of shape \(\d+, 4\), got shape \(\d+,\)",
    ),
    (lambda: pool_backward(X, lp_pool_forward(X, WINDOW)[1]), TypeError, "cache must come from pool_forward"),
    (
        lambda: pool_backward(X, pool_forward(X, WINDOW, lambda w: w.sum(-1), lambda w, o: w)[1]),
        ValueError,
        "dout has shape",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2][:40] for case in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
