"""Activations and dropout, with every instruction set."""

import pickle

import numpy as np
import pytest
from scipy.special import expit

import fastconv
from fastconv import layers
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])

#: The last four give the smallest normal numbers of the sigmoid, or slightly larger ones.
ODD = [0, -0.0, 1e-40, 800, -800, 88, -86, np.inf, -np.inf, np.nan, -87.2, -87.33, -708.2, -708.39]


def numbers(n, dtype, rng):
    """n numbers of many magnitudes, with the odd ones among them."""
    x = rng.standard_normal(n) * 10.0 ** rng.integers(-20, 2, n)
    return np.concatenate([x, ODD]).astype(dtype)


@dtypes
@pytest.mark.parametrize("n", [0, 5, 54, 20_000])
@pytest.mark.parametrize(("name", "exact"), [("sigmoid", expit), ("tanh", np.tanh)])
def test_values(name, exact, n, dtype, isa, rng):
    x = numbers(n, dtype, rng)
    out, _ = getattr(layers, f"{name}_forward")(x)
    expected = exact(x.astype(np.float64))
    assert out.dtype == dtype
    tiny = np.finfo(dtype).tiny
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps, atol=tiny)
    assert np.array_equal(np.signbit(out[~np.isnan(x)]), np.signbit(expected[~np.isnan(x)]))


@dtypes
@pytest.mark.parametrize("n", [5, 54, 20_000])
def test_gradients_of_curves(n, dtype, isa, rng):
    x, dout = numbers(n, dtype, rng), rng.standard_normal(n + len(ODD)).astype(dtype)
    for name, slope in (("sigmoid", lambda y: y * (1 - y)), ("tanh", lambda y: 1 - y**2)):
        out, cache = getattr(layers, f"{name}_forward")(x)
        dx = getattr(layers, f"{name}_backward")(dout, cache)
        assert dx.dtype == dtype
        np.testing.assert_allclose(dx, dout * slope(out.astype(np.float64)), rtol=0, atol=4 * np.finfo(dtype).eps)


@dtypes
@pytest.mark.parametrize("n", [5, 54, 20_000])
@pytest.mark.parametrize("slope", [0.01, -2, 0])
def test_leaky_relu(slope, n, dtype, isa, rng):
    x, dout = numbers(n, dtype, rng), rng.standard_normal(n + len(ODD)).astype(dtype)
    out, cache = layers.leaky_relu_forward(x, slope)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(out, np.where(x > 0, x, x * dtype(slope)), equal_nan=True)
    dx = layers.leaky_relu_backward(dout, cache)
    assert np.array_equal(dx, np.where(x > 0, dout, dout * dtype(slope))) and dx.dtype == dtype


@dtypes
@pytest.mark.parametrize("n", [1, 7, 61, 20_000])
def test_rectifiers_at_nan(n, dtype, isa):
    """For a NaN of either sign the output is NaN, and the gradient is that of inputs which are not positive."""
    x = np.resize(np.array([np.nan, -np.nan, 1, -1, 0, -0.0], dtype), n)
    dout = np.resize(np.array([5, np.inf, np.nan, np.inf, np.nan, -3], dtype), n)
    nan, positive = np.isnan(x), x > 0
    for slope, forward, backward in (
        (0, layers.relu_forward, layers.relu_backward),
        (0.5, lambda x: layers.leaky_relu_forward(x, 0.5), layers.leaky_relu_backward),
    ):
        out, cache = forward(x)
        assert np.isnan(out[nan]).all() and not np.isnan(out[~nan]).any()
        dx = backward(dout, cache)
        assert np.array_equal(dx[positive], dout[positive], equal_nan=True)
        assert np.array_equal(
            dx[~positive], slope * dout[~positive] if slope else np.zeros((~positive).sum()), equal_nan=True
        )


def test_leaky_relu_by_hand():
    assert np.array_equal(layers.leaky_relu_forward([[-100, 3]])[0], [[-1, 3]])


@pytest.mark.parametrize("name", ["leaky_relu", "sigmoid", "tanh"])
def test_central_differences_and_memory(name, rng):
    forward, backward = getattr(layers, f"{name}_forward"), getattr(layers, f"{name}_backward")
    x, dout = rng.standard_normal((2, 3, 4, 5))
    out, cache = forward(x)
    dx = backward(dout, cache)
    assert rel_error(dx, eval_numerical_gradient_array(lambda x: forward(x)[0], x, dout)) < 1e-8
    for lay in (np.asfortranarray, lambda a: a.astype(">f8"), lambda a: np.repeat(a, 2, axis=1)[:, ::2]):
        laid = lay(x)
        laid.setflags(write=False)
        again, laid_cache = forward(laid)
        assert np.array_equal(again, out) and np.array_equal(backward(lay(dout), laid_cache), dx)
    assert forward(np.empty((0, 3), np.float32))[0].shape == (0, 3)
    assert forward(np.arange(3))[0].dtype == np.float64 and forward(np.float16([1]))[0].dtype == np.float32


def test_threads_do_not_change_a_bit(monkeypatch, rng):
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    x = rng.standard_normal(50_001)
    for name in ("leaky_relu", "sigmoid", "tanh", "relu"):
        with fastconv.threads(1):
            one = getattr(layers, f"{name}_forward")(x)[0]
        with fastconv.threads(2):
            assert np.array_equal(one, getattr(layers, f"{name}_forward")(x)[0])


def course_mask(shape, p):
    return (np.random.rand(*shape) < p) / p  # noqa: NPY002 - as the course has it


@dtypes
@pytest.mark.parametrize("p", [0.25, 0.7, 1])
def test_dropout_has_the_courses_numbers(p, dtype, rng):
    x, dout = rng.standard_normal((2, 5, 7, 3)).astype(dtype)
    np.random.seed(231)  # noqa: NPY002
    first, second = course_mask(x.shape, p), course_mask(x.shape, p)
    np.random.seed(231)  # noqa: NPY002
    for mask in (first, second):
        param = {"mode": "train", "p": p}
        out, cache = layers.dropout_forward(x, param)
        assert cache[0] is param and out.dtype == cache[1].dtype == dtype
        np.testing.assert_allclose(cache[1], mask, rtol=1e-6)
        np.testing.assert_allclose(out, x * mask, rtol=1e-6)
        np.testing.assert_allclose(layers.dropout_backward(dout, cache), dout * mask, rtol=1e-6)


def test_seeded_dropout_repeats():
    x, param = np.ones((50, 50)), {"mode": "train", "p": 0.6, "seed": 7}
    outs = [layers.dropout_forward(x, param)[0] for _ in range(2)]
    assert np.array_equal(*outs)
    np.random.seed(7)  # noqa: NPY002
    assert np.array_equal(outs[0], course_mask(x.shape, 0.6))
    assert not np.array_equal(outs[0], layers.dropout_forward(x, {"mode": "train", "p": 0.6})[0])
    assert not np.array_equal(outs[0], layers.dropout_forward(x, {**param, "seed": 8})[0])
    assert abs(outs[0].mean() - 1) < 0.05 and abs((outs[0] == 0).mean() - 0.4) < 0.05


def test_dropout_in_testing(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    state = pickle.dumps(np.random.get_state())  # noqa: NPY002
    out, cache = layers.dropout_forward(x, {"mode": "test", "p": 0.3, "seed": 1})
    assert np.array_equal(out, x) and cache[1] is None and not np.shares_memory(out, x)
    assert np.array_equal(layers.dropout_backward(x, cache), x)
    assert pickle.dumps(np.random.get_state()) == state  # noqa: NPY002


def test_dropout_of_few_numbers_and_none():
    param = {"mode": "train", "p": 1e-300}
    out, cache = layers.dropout_forward(np.float32(3), param)
    assert out.shape == () and out == 0 and layers.dropout_backward(np.float32(2), cache) == 0
    assert layers.dropout_forward(np.empty((0, 4)), {"mode": "train", "p": 0.5})[0].shape == (0, 4)
