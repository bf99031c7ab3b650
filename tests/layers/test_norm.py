"""Batch, layer, group and local response normalisation against their definitions, written out here in float64."""

import math

import numpy as np
import pytest

import fastconv
from fastconv import layers
from fastconv._ext.norm import norm as _ext
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error
from fastconv.layers.norm.kernels import NormSizes
from fastconv.runtime import isa as _isa, threads as _threads

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])

#: Runs shorter and longer than a vector of any kind, with and without a remainder; many parts; several blocks of
#: columns.
SHAPES = [
    (4, 6, 7, 7),
    (3, 4, 1, 1),
    (130, 140, 1),
    (2, 6, 3, 1),
    (5, 4, 2),
    (2, 2, 70, 61),
    (1, 2, 5003),
    (40, 4, 33),
    (2, 4, 3, 4, 5),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["x".join(map(str, shape)) for shape in SHAPES])


def normalised(x, axes, eps):
    """x minus its mean over the axes, divided by its standard deviation; and 1 divided by that deviation."""
    scale = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    return (x - x.mean(axis=axes, keepdims=True)) * scale, scale


def gradient(dout, gamma, hat, scale, axes):
    """dx of hat * gamma, by the chain rule through mean and variance."""
    g = dout * gamma
    return scale * (g - g.mean(axis=axes, keepdims=True) - hat * (g * hat).mean(axis=axes, keepdims=True))


def case(shape, dtype, rng):
    """x with some mean and standard deviation; gamma and beta, which broadcast to it; and dout."""
    x = (rng.standard_normal(shape) * 3 + 5).astype(dtype)
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    over = (slice(None), *(None,) * (len(shape) - 2))
    return x, gamma, beta, gamma.astype(float)[over], beta.astype(float)[over], rng.standard_normal(shape).astype(dtype)


def close(actual, expected, dtype, terms=1):
    """Equal up to rounding; `terms` is the magnitude of terms that may cancel in a sum."""
    assert actual.dtype == dtype and actual.shape == np.shape(expected) and actual.flags.c_contiguous
    scale = max(float(np.max(np.abs(expected), initial=0)), terms)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=30 * np.finfo(dtype).eps * scale)


@dtypes
@shapes
@pytest.mark.parametrize("threads", [1, 2])
def test_spatial_batchnorm(shape, dtype, threads, isa, rng):
    x, gamma, beta, wide_gamma, wide_beta, dout = case(shape, dtype, rng)
    axes = (0, *range(2, x.ndim))
    hat, scale = normalised(x.astype(float), axes, 1e-5)
    bn_param = {"mode": "train"}
    with fastconv.threads(threads):
        out, cache = layers.spatial_batchnorm_forward(x, gamma, beta, bn_param)
        dx, dgamma, dbeta = layers.spatial_batchnorm_backward(dout, cache)
    close(out, hat * wide_gamma + wide_beta, dtype)
    close(dx, gradient(dout.astype(float), wide_gamma, hat, scale, axes), dtype)
    close(dgamma, (dout * hat).sum(axis=axes), dtype, math.sqrt(x.size / shape[1]))
    close(dbeta, dout.sum(axis=axes, dtype=float), dtype, math.sqrt(x.size / shape[1]))
    close(bn_param["running_mean"], 0.1 * x.mean(axis=axes, dtype=float), dtype)
    close(bn_param["running_var"], 0.1 * x.astype(float).var(axis=axes), dtype)


@dtypes
@shapes
def test_spatial_batchnorm_in_testing(shape, dtype, isa, rng):
    x, gamma, beta, wide_gamma, wide_beta, dout = case(shape, dtype, rng)
    axes = (0, *range(2, x.ndim))
    mean, variance = rng.standard_normal(shape[1]).astype(dtype), rng.random(shape[1]).astype(dtype) + 1
    bn_param = {"mode": "test", "running_mean": mean, "running_var": variance, "eps": 0.5}
    out, cache = layers.spatial_batchnorm_forward(x, gamma, beta, bn_param)
    over = (slice(None), *(None,) * (x.ndim - 2))
    scale = 1 / np.sqrt(variance.astype(float)[over] + 0.5)
    hat = (x - mean.astype(float)[over]) * scale
    close(out, hat * wide_gamma + wide_beta, dtype)
    dx, dgamma, dbeta = layers.spatial_batchnorm_backward(dout, cache)
    close(dx, dout * wide_gamma * scale, dtype)
    close(dgamma, (dout * hat).sum(axis=axes), dtype, 10 * math.sqrt(x.size / shape[1]))
    close(dbeta, dout.sum(axis=axes, dtype=float), dtype, math.sqrt(x.size / shape[1]))
    assert np.array_equal(bn_param["running_mean"], mean) and np.array_equal(bn_param["running_var"], variance)


@dtypes
@shapes
@pytest.mark.parametrize("groups", [1, 2, "C"])
def test_spatial_groupnorm(shape, groups, dtype, isa, rng):
    x, gamma, beta, wide_gamma, wide_beta, dout = case(shape, dtype, rng)
    G = shape[1] if groups == "C" else groups
    whole = (1, shape[1], *(1,) * (x.ndim - 2))
    wide = (shape[0], G, -1)
    hat, scale = normalised(x.astype(float).reshape(wide), 2, 0.01)
    out, cache = layers.spatial_groupnorm_forward(x, gamma.reshape(whole), beta, G, {"eps": 0.01})
    close(out, hat.reshape(shape) * wide_gamma + wide_beta, dtype)
    dx, dgamma, dbeta = layers.spatial_groupnorm_backward(dout, cache)
    g = (dout * wide_gamma).reshape(wide)
    close(dx, gradient(g, 1, hat, scale, 2).reshape(shape), dtype, float(scale.max()))
    axes = (0, *range(2, x.ndim))
    close(dgamma, (dout * hat.reshape(shape)).sum(axis=axes).reshape(whole), dtype, math.sqrt(x.size / shape[1]))
    close(dbeta, dout.sum(axis=axes, dtype=float), dtype, math.sqrt(x.size / shape[1]))


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (130, 70), (7, 3000)], ids=str)
def test_rows(shape, dtype, isa, rng):
    """Batch norm of feature vectors, and layer norm."""
    x, gamma, beta, _, _, dout = case(shape, dtype, rng)
    for axis, forward, backward in (
        (0, layers.batchnorm_forward, layers.batchnorm_backward),
        (1, layers.layernorm_forward, layers.layernorm_backward),
    ):
        hat, scale = normalised(x.astype(float), axis, 0.01)
        out, cache = forward(x, gamma, beta, {"mode": "train", "eps": 0.01})
        close(out, hat * gamma + beta, dtype)
        dx, dgamma, dbeta = backward(dout, cache)
        close(dx, gradient(dout, gamma.astype(float), hat, scale, axis), dtype, float(scale.max()))
        close(dgamma, (dout * hat).sum(axis=0), dtype, math.sqrt(shape[0]))
        close(dbeta, dout.sum(axis=0, dtype=float), dtype, math.sqrt(shape[0]))


@dtypes
def test_means_far_from_zero(dtype, isa, rng):
    """The variance is computed from differences to the mean, so a mean far from zero costs no digits."""
    far = 1000 if dtype == np.float32 else 1e8
    # In float32 the mean has the digits of a double; in float64 it cannot have more digits than x.
    tolerance = 40 * np.finfo(dtype).eps if dtype == np.float32 else 2 * far * np.finfo(dtype).eps
    for shape in ((3, 2, 41, 53), (500, 3, 1)):
        x = (rng.standard_normal(shape) + far).astype(dtype)
        axes = (0, *range(2, x.ndim))
        exact = x.astype(np.longdouble)
        hat = (exact - exact.mean(axis=axes, keepdims=True)) / np.sqrt(exact.var(axis=axes, keepdims=True) + 1e-5)
        out, _ = layers.spatial_batchnorm_forward(
            x, np.ones(shape[1], dtype), np.zeros(shape[1], dtype), {"mode": "train"}
        )
        np.testing.assert_allclose(out, hat.astype(float), rtol=0, atol=tolerance)
        out, _ = layers.spatial_groupnorm_forward(x[:, :1], np.ones(1, dtype), np.zeros(1, dtype), 1)
        exact = exact[:, :1].reshape(shape[0], -1)
        hat = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(out.reshape(hat.shape), hat.astype(float), rtol=0, atol=tolerance)


def test_constant_channels_are_the_shift(isa):
    x = np.full((3, 2, 5, 11), 7.1, np.float32)
    out, cache = layers.spatial_batchnorm_forward(x, np.ones(2), np.array([4.0, -1.0]), {"mode": "train"})
    np.testing.assert_allclose(out[:, 0], 4, atol=1e-9)
    np.testing.assert_allclose(out[:, 1], -1, atol=1e-9)
    assert np.all(np.isfinite(layers.spatial_batchnorm_backward(out, cache)[0]))


@dtypes
@pytest.mark.parametrize("value", [7.0, 0.1, 1.1, -7.3, 1000.1, -1 / 3, 0.0])
def test_without_eps_a_constant_is_refused(value, dtype, isa, rng):
    """With eps=0 the result would be 0 / 0, which is NaN. A limit for small eps exists, but not for the gradient."""
    ones, zeros, word = np.ones(4), np.zeros(4), "would divide by 0"
    for shape in ((3, 4, 5, 11), (4, 4, 5, 5), (3, 4, 1), (2, 4, 5003), (67, 4, 3), (1, 4, 1)):
        x = rng.standard_normal(shape).astype(dtype)
        x[:, 2] = value
        many = math.prod(shape) // 4 > 1
        channel = r"x\[:, 2\] is 0; with" if many else r"x\[:, 0\] is 0 \(and 3 more variances are\); with"
        bn_param = {"mode": "train", "eps": 0}
        with pytest.raises(ValueError, match=f"eps must be above 0, .*the variance of {channel}.*{word}"):
            layers.spatial_batchnorm_forward(x, ones, zeros, bn_param)
        assert bn_param == {"mode": "train", "eps": 0}
        group = r"group 2 of x\[0\]" if shape[2:] != (1,) else r"group 0 of x\[0\]"
        with pytest.raises(ValueError, match=f"eps must be above 0, .*the variance of {group} is 0 .and .*{word}"):
            layers.spatial_groupnorm_forward(np.concatenate([x, x]), ones, zeros, 4, {"eps": 0})
        out, _ = layers.spatial_batchnorm_forward(x, ones, zeros + 3, {"mode": "train", "eps": 1e-300})
        assert np.all(out[:, 2] == 3)
    rows = rng.standard_normal((5, 4)).astype(dtype)
    rows[:, 3] = rows[1] = value
    with pytest.raises(ValueError, match=rf"the variance of x\[:, 3\].*{word}"):
        layers.batchnorm_forward(np.delete(rows, 1, 0), ones, zeros, {"mode": "train", "eps": 0.0})
    with pytest.raises(ValueError, match=rf"the variance of x\[1\] is 0; with.*{word}"):
        layers.layernorm_forward(rows, ones, zeros, {"eps": 0})


@pytest.mark.parametrize("value", [0.1, 1.1, -7.3, 1000.1, 1e30])
def test_without_eps_equal_numbers_are_refused_whose_variance_rounds_to_more(value, isa, rng):
    """In float32 the rounded mean of equal numbers may differ from them, so the variance is not exactly 0."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    for shape in ((4, 4, 5, 5), (2, 4, 7, 7), (3, 4, 5, 11)):
        x = rng.standard_normal(shape).astype(np.float32)
        x[:, 2] = value
        with pytest.raises(ValueError, match=r"the variance of x\[:, 2\] is 0; with"):
            layers.spatial_batchnorm_forward(x, ones, zeros, {"mode": "train", "eps": 0})
        with pytest.raises(ValueError, match=r"the variance of group 2 of x\[0\] is 0 .and"):
            layers.spatial_groupnorm_forward(x, ones, zeros, 4, {"eps": 0})


def test_without_eps_a_running_variance_of_zero_is_refused(rng):
    for x, forward in (
        (rng.standard_normal((5, 4)), layers.batchnorm_forward),
        (rng.standard_normal((5, 4, 3)), layers.spatial_batchnorm_forward),
    ):
        bn_param = {"mode": "test", "eps": 0, "running_mean": np.zeros(4), "running_var": np.array([1.0, 2, 0, 1])}
        with pytest.raises(
            ValueError, match=r"eps must be above 0, .* because running_var\[2\] in bn_param is 0; with"
        ):
            forward(x, np.ones(4), np.zeros(4), bn_param)
        with pytest.raises(ValueError, match=r"running_var\[0\] in bn_param is 0 \(and 3 more variances are\)"):
            forward(x, np.ones(4), np.zeros(4), {"mode": "test", "eps": 0})
        bn_param["running_var"] = np.array([1.0, 4, 16, 1])
        out, _ = forward(x, np.ones(4), np.zeros(4), bn_param)
        over = (slice(None), *(None,) * (x.ndim - 2))
        np.testing.assert_allclose(out, x / np.array([1.0, 2, 4, 1])[over], rtol=1e-15)
        bn_param["running_var"] = np.array([1.0, 4, -16, 1])
        with pytest.raises(ValueError, match="running_var in bn_param must be >= 0, got -16"):
            forward(x, np.ones(4), np.zeros(4), bn_param)
        assert forward(x[:0], np.ones(4), np.zeros(4), {"mode": "test", "eps": 0})[0].shape == x[:0].shape


def test_without_eps_nan_and_other_channels_are_no_error(isa, rng):
    x = rng.standard_normal((3, 3, 7))
    x[:, 1], x[0, 2, 0] = np.nan, np.inf
    for bn_param in ({"mode": "train", "eps": 0}, {"mode": "train", "eps": 1e-5}):
        out, _ = layers.spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)
        assert np.isnan(out[:, 1:]).all()
        np.testing.assert_allclose(out[:, :1], normalised(x[:, :1], (0, 2), bn_param["eps"])[0], atol=1e-14)


def test_nan_stays_in_its_channel(isa, rng):
    x = rng.standard_normal((3, 4, 5, 7))
    x[1, 2, 3, 4] = np.nan
    out, cache = layers.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), {"mode": "train"})
    dx = layers.spatial_batchnorm_backward(np.ones_like(x), cache)[0]
    for result in (out, dx):
        assert np.isnan(result[:, 2]).all() and np.isfinite(np.delete(result, 2, axis=1)).all()
    x = np.ones((2, 3, 17))
    x[0, 0, 16], x[1, 1, 0] = np.inf, np.nan
    out, _ = layers.spatial_groupnorm_forward(x, np.ones(3), np.zeros(3), 3)
    assert np.array_equal(np.isnan(out).all(axis=2), [[1, 0, 0], [0, 1, 0]])


@dtypes
@pytest.mark.parametrize(
    "shape",
    # A kernel call processes several short channels, and one channel is left at the end.
    [(3, 24, 31, 17), (2, 2049, 7, 7), (1, 4097, 7, 7), (1, 4097, 3), (2, 2052, 1)],
    ids=str,
)
def test_threads_do_not_change_a_bit(shape, dtype, isa, rng):
    x, dout = rng.standard_normal((2, *shape)).astype(dtype)
    gamma = np.ones(shape[1], dtype)

    def everything():
        out, cache = layers.spatial_batchnorm_forward(x, gamma, gamma, {"mode": "train"})
        results = [out, *layers.spatial_batchnorm_backward(dout, cache)]
        out, cache = layers.spatial_groupnorm_forward(x, gamma, gamma, 1 if shape[1] % 4 else 4)
        results += [out, *layers.spatial_groupnorm_backward(dout, cache)]
        out, cache = layers.lrn_forward(x, {"size": 5, "alpha": 1})
        return [*results, out, layers.lrn_backward(dout, cache)]

    with fastconv.threads(1):
        one = everything()
    for threads in (2, 3, 4):
        with fastconv.threads(threads):
            for _ in range(2):
                assert all(map(np.array_equal, one, everything()))


@dtypes
def test_documented_range(dtype, isa, rng):
    far, largest = (1e18, 1.8e19) if dtype == np.float32 else (1e150, 1.3e154)
    x = rng.uniform(-1.0, 1.0, (64, 2, 40)) * far
    axes = (0, 2)
    for given in (x, x[..., :1]):
        wide = given.astype(np.longdouble)
        hat = ((wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)).astype(float)
        out, _ = layers.spatial_batchnorm_forward(
            given.astype(dtype), np.ones(2, dtype), np.ones(2, dtype), {"mode": "train"}
        )
        np.testing.assert_allclose(out, hat + 1, atol=1e-5)
        wide = wide.reshape(len(x), -1)
        hat = ((wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)).astype(float)
        out, _ = layers.spatial_groupnorm_forward(given.astype(dtype), np.ones(2, dtype), np.ones(2, dtype), 1)
        np.testing.assert_allclose(out.reshape(hat.shape), hat + 1, atol=1e-5)
    param = {"size": 2, "alpha": 2, "beta": 0.5, "k": 0}
    out, _ = layers.lrn_forward(np.array([[[largest]], [[1.1 * largest]]], dtype), param)
    np.testing.assert_allclose(out.ravel(), [1, 0], rtol=1e-6)


def strided(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "lay", [strided, read_only, np.asfortranarray, lambda a: a.astype(">f8")], ids=["strided", "read", "F", "swapped"]
)
def test_any_memory(lay, rng):
    x, dout = rng.standard_normal((2, 3, 4, 5, 6))
    gamma, beta = rng.standard_normal((2, 4))
    lrn_param = {"size": 3, "alpha": 1}
    for forward, backward, rest in (
        (layers.spatial_batchnorm_forward, layers.spatial_batchnorm_backward, ({"mode": "train"},)),
        (layers.spatial_groupnorm_forward, layers.spatial_groupnorm_backward, (2,)),
    ):
        out, cache = forward(x, gamma, beta, *rest)
        laid, laid_cache = forward(lay(x), lay(gamma), lay(beta), *rest)
        assert np.array_equal(out, laid) and laid.dtype.isnative
        assert all(map(np.array_equal, backward(dout, cache), backward(lay(dout), laid_cache)))
    out, cache = layers.lrn_forward(x, lrn_param)
    laid, laid_cache = layers.lrn_forward(lay(x), lrn_param)
    assert np.array_equal(out, laid)
    assert np.array_equal(layers.lrn_backward(dout, cache), layers.lrn_backward(lay(dout), laid_cache))


def test_dtypes(rng):
    x = rng.integers(-5, 5, (3, 4, 5))
    single, double = np.ones(4, np.float32), np.ones(4)
    for given, gamma, expected in (
        (x, single, np.float64),
        (x.astype(np.float16), single, np.float32),
        (x.astype(np.float32), double, np.float64),
    ):
        bn_param = {"mode": "train"}
        out, cache = layers.spatial_batchnorm_forward(given, gamma, gamma, bn_param)
        gradients = layers.spatial_batchnorm_backward(np.ones(x.shape), cache)
        assert {a.dtype for a in (out, *gradients, *map(bn_param.get, ("running_mean", "running_var")))} == {
            np.dtype(expected)
        }
        assert layers.spatial_groupnorm_forward(given, gamma, gamma, 2)[0].dtype == expected
    # Running averages kept in float64 stay in float64, and do not change the dtype of the layer.
    bn_param = {"mode": "train", "running_mean": np.zeros(4), "running_var": [1, 1, 1, 1]}
    out, _ = layers.spatial_batchnorm_forward(x.astype(np.float32), single, single, bn_param)
    assert out.dtype == np.float32 and bn_param["running_mean"].dtype == np.float64


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (0, 4, 1), (2, 4, 0, 3)], ids=str)
def test_empty(shape):
    gamma = np.ones(4, np.float32)
    x, kept = np.empty(shape, np.float32), np.full(4, 3.0)
    for mode in ("train", "test"):
        bn_param = {"mode": mode, "running_mean": kept, "running_var": kept}
        out, cache = layers.spatial_batchnorm_forward(x, gamma, gamma, bn_param)
        dx, dgamma, dbeta = layers.spatial_batchnorm_backward(x, cache)
        assert out.shape == dx.shape == shape and out.dtype == dgamma.dtype == np.float32
        assert np.array_equal([dgamma, dbeta], np.zeros((2, 4)))
        assert np.array_equal(bn_param["running_mean"], kept)
    out, cache = layers.spatial_groupnorm_forward(x, gamma, gamma, 2)
    dx, dgamma, dbeta = layers.spatial_groupnorm_backward(x, cache)
    assert out.shape == dx.shape == shape and np.array_equal([dgamma, dbeta], np.zeros((2, 4)))
    out, cache = layers.lrn_forward(x, {"size": 3})
    assert out.shape == layers.lrn_backward(x, cache).shape == shape
    for forward, backward in (
        (layers.batchnorm_forward, layers.batchnorm_backward),
        (layers.layernorm_forward, layers.layernorm_backward),
    ):
        out, cache = forward(np.empty((0, 4)), np.ones(4), np.ones(4), {"mode": "train"})
        dx, dgamma, _ = backward(np.empty((0, 4)), cache)
        assert out.shape == dx.shape == (0, 4) and np.array_equal(dgamma, np.zeros(4))


def test_running_averages_of_several_batches(rng):
    batches = rng.standard_normal((5, 20, 3)) * [1, 2, 3] + [0, 10, -5]
    bn_param = {"mode": "train", "momentum": 0.7}
    mean, variance = np.zeros(3), np.zeros(3)
    for batch in batches:
        kept = bn_param.get("running_mean")
        before = None if kept is None else kept.copy()
        layers.batchnorm_forward(batch, np.ones(3), np.zeros(3), bn_param)
        assert before is None or np.array_equal(before, kept)  # The given arrays are not written to.
        mean, variance = 0.7 * mean + 0.3 * batch.mean(axis=0), 0.7 * variance + 0.3 * batch.var(axis=0)
    np.testing.assert_allclose(bn_param["running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(bn_param["running_var"], variance, rtol=1e-12)
    assert set(bn_param) == {"mode", "momentum", "running_mean", "running_var"}


def test_before_any_training_averages_are_zeros():
    bn_param = {"mode": "test", "eps": 0.25}
    out, _ = layers.batchnorm_forward(np.array([[1.0, -2.0]]), np.ones(2), np.zeros(2), bn_param)
    assert np.array_equal(out, [[2, -4]])
    assert np.array_equal(bn_param["running_mean"], [0, 0]) and np.array_equal(bn_param["running_var"], [0, 0])


GRADIENTS = {
    "batchnorm": ((4, 5), ({"mode": "train"},)),
    "batchnorm_test": ((4, 5), ({"mode": "test", "running_mean": np.arange(5.0), "running_var": np.ones(5)},)),
    "layernorm": ((4, 5), ({},)),
    "spatial_batchnorm": ((2, 3, 3, 2), ({"mode": "train"},)),
    "spatial_groupnorm": ((2, 6, 2, 3), (3,)),
    "spatial_groupnorm_1d": ((2, 4, 3), (2, {"eps": 1e-2})),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_central_differences(name, rng):
    shape, rest = GRADIENTS[name]
    name = name.removesuffix("_test").removesuffix("_1d")
    forward, backward = getattr(layers, f"{name}_forward"), getattr(layers, f"{name}_backward")
    arrays = [rng.standard_normal(shape) * 2 + 3, *rng.standard_normal((2, shape[1]))]
    out, cache = forward(*arrays, *rest)
    dout = rng.standard_normal(out.shape)
    for array, analytic in zip(arrays, backward(dout, cache), strict=True):
        numeric = eval_numerical_gradient_array(lambda _: forward(*arrays, *rest)[0], array, dout)
        assert rel_error(numeric, analytic) < 1e-5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": 25}, "x, dout and the result have 25, 25 and 24 elements, but the layer needs 24"),
        ({"out": 26}, "x, dout and the result have 24, 24 and 26 elements, but the layer needs 24"),
        ({"gamma": 4}, "gamma has 4 elements, but the layer needs 3"),
        ({"mean": 2}, "mean has 2 elements, but the layer needs 3"),
        ({"variance": 4}, "variance has 4 elements, but the layer needs 3"),
    ],
    ids=["x", "out", "gamma", "mean", "variance"],
)
def test_kernels_name_the_array_whose_size_is_wrong(changed, message):
    sizes = {"x": 24, "out": 24, "gamma": 3, "beta": 3, "mean": 3, "variance": 3, "scale": 3} | changed
    arrays = [np.ones(size) for size in sizes.values()]
    with pytest.raises(ValueError) as raised:
        call = (1, *arrays, NormSizes(2, 3, 4), 1e-5, True, _isa.current)
        _threads.share(_ext.batch_forward, call, items=3, work=24, threads=1)
    assert str(raised.value) == message


def test_kernels_refuse_arrays_that_are_not_aligned():
    unaligned = np.frombuffer(bytearray(8 * 3 + 1), np.uint8)[1:].view(np.float64)
    arrays = [np.ones(24), np.ones(24), unaligned, *(np.ones(3) for _ in range(4))]
    with pytest.raises(ValueError, match=r"^gamma must be aligned to its itemsize of 8 bytes$"):
        call = (1, *arrays, NormSizes(2, 3, 4), 1e-5, True, _isa.current)
        _threads.share(_ext.batch_forward, call, items=3, work=24, threads=1)
