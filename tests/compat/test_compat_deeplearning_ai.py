"""The deeplearning.ai pack against the assignment's definitions, written as loops, and its published numbers."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fastconv.compat import deeplearning_ai as course
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error

# A_prev, W, stride, pad
LAYERS = [
    ((2, 5, 5, 3), (3, 3, 3, 4), 1, 1),
    ((2, 7, 6, 2), (3, 2, 2, 3), 2, 1),  # not square, does not tile
    ((2, 9, 8, 1), (4, 4, 1, 2), 3, 0),
    ((1, 4, 4, 3), (1, 1, 3, 5), 1, 0),
    ((1, 3, 4, 2), (2, 3, 2, 2), 4, 3),  # padding past the filter
    ((0, 5, 5, 2), (3, 3, 2, 2), 1, 1),
]
# A_prev, f, stride
POOLS = [
    ((2, 4, 4, 3), 2, 2),
    ((2, 7, 8, 2), 3, 2),
    ((1, 6, 5, 1), 3, 1),
    ((2, 7, 7, 2), 2, 3),
    ((1, 3, 3, 2), 3, 10**30),
    ((0, 4, 4, 2), 2, 2),
]


def outputs(size, f, stride, pad=0):
    return (size + 2 * pad - f) // stride + 1


def loop_conv(A_prev, W, b, stride, pad):
    """The convolution as loops, one output at a time. Returns Z, and a function from dZ to the three gradients."""
    m, H, Wd, _ = A_prev.shape
    fh, fw, _, n_C = W.shape
    padded = np.zeros((m, H + 2 * pad, Wd + 2 * pad, A_prev.shape[3]))
    padded[:, pad : pad + H, pad : pad + Wd] = A_prev
    places = list(np.ndindex(m, outputs(H, fh, stride, pad), outputs(Wd, fw, stride, pad), n_C))
    Z = np.zeros((m, outputs(H, fh, stride, pad), outputs(Wd, fw, stride, pad), n_C))
    for i, h, w, c in places:
        Z[i, h, w, c] = (padded[i, h * stride : h * stride + fh, w * stride : w * stride + fw] * W[..., c]).sum()
        Z[i, h, w, c] += b[0, 0, 0, c]

    def gradients(dZ):
        dA, dW, db = np.zeros_like(padded), np.zeros(W.shape), np.zeros(b.shape)
        for i, h, w, c in places:
            window = i, slice(h * stride, h * stride + fh), slice(w * stride, w * stride + fw)
            dA[window] += W[..., c] * dZ[i, h, w, c]
            dW[..., c] += padded[window] * dZ[i, h, w, c]
            db[0, 0, 0, c] += dZ[i, h, w, c]
        return dA[:, pad : pad + H, pad : pad + Wd], dW, db

    return Z, gradients


def loop_pool(A_prev, fh, fw, stride, mode):
    m, H, W, n_C = A_prev.shape
    A = np.zeros((m, outputs(H, fh, stride), outputs(W, fw, stride), n_C))
    for i, h, w, c in np.ndindex(A.shape):
        window = A_prev[i, h * stride : h * stride + fh, w * stride : w * stride + fw, c]
        A[i, h, w, c] = max(window.ravel()) if mode == "max" else sum(window.ravel()) / (fh * fw)

    def gradient(dA):
        dA_prev = np.zeros(A_prev.shape)
        for i, h, w, c in np.ndindex(A.shape):
            for kh, kw in np.ndindex(fh, fw):
                cell = i, h * stride + kh, w * stride + kw, c
                if mode == "average":
                    dA_prev[cell] += dA[i, h, w, c] / (fh * fw)
                elif A_prev[cell] == A[i, h, w, c]:
                    dA_prev[cell] += dA[i, h, w, c]
        return dA_prev

    return A, gradient


def layer(rng, A_shape, W_shape, dtype=np.float64):
    shapes = A_shape, W_shape, (1, 1, 1, W_shape[3])
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("A_shape", "W_shape", "stride", "pad"), LAYERS)
def test_conv(A_shape, W_shape, stride, pad, dtype, rng):
    A_prev, W, b = layer(rng, A_shape, W_shape, dtype)
    hparameters = {"stride": stride, "pad": pad}
    expected, gradients = loop_conv(A_prev, W, b, stride, pad)
    tolerance = 1e-4 if dtype is np.float32 else 1e-11
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    assert Z.dtype == dtype and Z.flags.c_contiguous
    np.testing.assert_allclose(Z, expected, atol=tolerance)
    assert isinstance(cache, tuple) and len(cache) == 4
    assert all(kept is given for kept, given in zip(cache, (A_prev, W, b, hparameters), strict=True))

    dZ = rng.standard_normal(Z.shape).astype(dtype)
    for gradient, wanted, of in zip(course.conv_backward(dZ, cache), gradients(dZ), (A_prev, W, b), strict=True):
        assert gradient.dtype == dtype and gradient.shape == of.shape and gradient.flags.c_contiguous
        np.testing.assert_allclose(gradient, wanted, atol=tolerance)


@given(
    st.integers(1, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3),
)  # fmt: skip
def test_any_geometry(m, H, W, channels, filters, fh, fw, stride, pad):
    rng = np.random.default_rng(m + H)
    A_prev, weights, b = layer(rng, (m, H, W, channels), (fh, fw, channels, filters))
    if min(H + 2 * pad - fh, W + 2 * pad - fw) < 0:
        with pytest.raises(ValueError, match="kernel covers"):
            course.conv_forward(A_prev, weights, b, {"stride": stride, "pad": pad})
        return
    expected, gradients = loop_conv(A_prev, weights, b, stride, pad)
    Z, cache = course.conv_forward(A_prev, weights, b, {"stride": stride, "pad": pad})
    np.testing.assert_allclose(Z, expected, atol=1e-11)
    for gradient, wanted in zip(course.conv_backward(Z, cache), gradients(expected), strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-9)


def test_conv_central_differences(rng):
    A_prev, W, b = layer(rng, (2, 6, 5, 2), (3, 2, 2, 3))
    hparameters = {"stride": 2, "pad": 1}
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    dZ = rng.standard_normal(Z.shape)
    for array, gradient in zip((A_prev, W, b), course.conv_backward(dZ, cache), strict=True):
        numeric = eval_numerical_gradient_array(lambda _: course.conv_forward(A_prev, W, b, hparameters)[0], array, dZ)
        assert rel_error(numeric, gradient) < 1e-7


def test_conv_orders_and_mixed_input(rng):
    A_prev, W, b = layer(rng, (2, 6, 5, 3), (3, 2, 3, 4))
    hparameters = {"stride": 2, "pad": 1}
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    dZ = rng.standard_normal(Z.shape)
    backward = course.conv_backward(dZ, cache)
    turned = np.asfortranarray(A_prev), np.asfortranarray(W)[...], b.astype(">f8")
    again, cache = course.conv_forward(*turned, hparameters)
    assert np.array_equal(Z, again)
    for a, c in zip(backward, course.conv_backward(np.asfortranarray(dZ), cache), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-12)
    every_other = np.zeros((4, 12, 10, 6))
    every_other[::2, ::2, ::2, ::2] = A_prev
    assert np.array_equal(course.conv_forward(every_other[::2, ::2, ::2, ::2], W, b, hparameters)[0], Z)

    mixed = (10 * A_prev).astype(int), W.astype(np.float32), np.ones((1, 1, 1, 4), bool)
    expected, gradients = loop_conv(*(a.astype(float) for a in mixed), 2, 1)
    Z, cache = course.conv_forward(*mixed, hparameters)
    assert Z.dtype == np.float64
    np.testing.assert_allclose(Z, expected, atol=1e-11)
    for a, c in zip(course.conv_backward(np.ones(Z.shape, int), cache), gradients(np.ones(Z.shape)), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, c, atol=1e-11)


def test_arrays_changed_in_place_between_calls(rng):
    A_prev, W, b = layer(rng, (1, 5, 5, 2), (3, 3, 2, 2))
    hparameters = {"stride": 1, "pad": 1}
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    before = course.conv_backward(Z, cache)
    W *= 2
    np.testing.assert_allclose(course.conv_forward(A_prev, W, b, hparameters)[0], 2 * (Z - b) + b)
    # The cache holds the same array objects, as in the course.
    after = course.conv_backward(Z, cache)
    np.testing.assert_allclose(after[0], 2 * before[0])
    A_prev *= 3
    np.testing.assert_allclose(course.conv_backward(Z, cache)[1], 3 * before[1])
    pooled, cache = course.pool_forward(A_prev, {"f": 2, "stride": 1})
    A_prev *= -1
    assert not np.array_equal(course.pool_forward(A_prev, {"f": 2, "stride": 1})[0], pooled)
    _, gradient = loop_pool(A_prev, 2, 2, 1, "max")
    np.testing.assert_allclose(course.pool_backward(pooled, cache), gradient(pooled))


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("values", ["distinct", "tied"])
@pytest.mark.parametrize(("shape", "f", "stride"), POOLS)
def test_pool(shape, f, stride, values, mode, rng):
    size = int(np.prod(shape))
    A_prev = (rng.permutation(size) if values == "distinct" else rng.integers(0, 3, size)).reshape(shape) * 0.5
    hparameters = {"f": f, "stride": stride}
    expected, gradient = loop_pool(A_prev, f, f, stride, mode)
    A, cache = course.pool_forward(A_prev, hparameters, mode=mode)
    assert A.flags.c_contiguous and len(cache) == 2 and cache[0] is A_prev and cache[1] is hparameters
    np.testing.assert_allclose(A, expected, atol=1e-12)
    dA = rng.standard_normal(A.shape)
    np.testing.assert_allclose(course.pool_backward(dA, cache, mode=mode), gradient(dA), atol=1e-12)

    single, cache32 = course.pool_forward(A_prev.astype(np.float32), hparameters, mode)
    assert single.dtype == np.float32 == course.pool_backward(dA, cache32, mode).dtype
    ints, cache_int = course.pool_forward(np.asfortranarray((2 * A_prev).astype(int)), hparameters, mode)
    np.testing.assert_allclose(ints, 2 * expected, atol=1e-12)
    np.testing.assert_allclose(course.pool_backward(dA, cache_int, mode), gradient(dA), atol=1e-12)


@pytest.mark.parametrize("mode", ["max", "average"])
def test_pool_windows_that_are_not_square(mode, rng):
    A_prev = rng.integers(0, 4, (2, 5, 7, 2)).astype(float)
    expected, gradient = loop_pool(A_prev, 2, 3, 2, mode)
    A, cache = course.pool_forward(A_prev, {"f": (2, 3), "stride": 2}, mode)
    np.testing.assert_allclose(A, expected)
    np.testing.assert_allclose(course.pool_backward(A, cache, mode), gradient(A))


def test_every_maximum_gets_the_gradient():
    """A case computed by hand: [[5, 5], [1, 5]] has three maxima, and each gets the whole gradient."""
    A_prev = np.array([[5.0, 5.0], [1.0, 5.0]]).reshape(1, 2, 2, 1)
    _, cache = course.pool_forward(A_prev, {"f": 2, "stride": 1})
    assert np.array_equal(course.pool_backward(np.full((1, 1, 1, 1), 7.0), cache)[0, :, :, 0], [[7, 7], [0, 7]])
    assert np.array_equal(course.create_mask_from_window(A_prev[0, :, :, 0]), [[True, True], [False, True]])


def test_one_dict_serves_both_layers(rng):
    A_prev, W, b = layer(rng, (1, 6, 6, 1), (3, 3, 1, 1))
    both = {"stride": 1, "pad": 0, "f": 2}
    Z, _ = course.conv_forward(A_prev, W, b, both)
    assert course.pool_forward(Z, both)[0].shape == (1, 3, 3, 1)


# The output of the assignment's notebook.


def test_published_zero_pad():
    random = np.random.RandomState(1)
    x = random.randn(4, 3, 3, 2)
    x_pad = course.zero_pad(x, 2)
    assert x_pad.shape == (4, 7, 7, 2)
    np.testing.assert_allclose(
        x[1, 1], [[0.90085595, -0.68372786], [-0.12289023, -0.93576943], [-0.26788808, 0.53035547]], atol=1e-8
    )
    assert np.all(x_pad[1, 1] == 0) and np.array_equal(x_pad[:, 2:-2, 2:-2], x)
    assert np.array_equal(x_pad, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))))


def test_published_conv_single_step():
    random = np.random.RandomState(1)
    Z = course.conv_single_step(random.randn(4, 4, 3), random.randn(4, 4, 3), random.randn(1, 1, 1))
    assert type(Z) is np.float64
    assert np.isclose(Z, -6.99908945068, atol=1e-10)


def test_published_conv():
    random = np.random.RandomState(1)
    A_prev, W, b = random.randn(10, 4, 4, 3), random.randn(2, 2, 3, 8), random.randn(1, 1, 1, 8)
    Z, cache = course.conv_forward(A_prev, W, b, {"pad": 2, "stride": 2})
    assert np.isclose(Z.mean(), 0.0489952035289, atol=1e-12)
    published = [-0.61490741, -6.7439236, -2.55153897, 1.75698377, 3.56208902, 0.53036437, 5.18531798, 8.75898442]
    np.testing.assert_allclose(Z[3, 2, 1], published, atol=1e-8)
    np.testing.assert_allclose(cache[0][1][2][3], [-0.20075807, 0.18656139, 0.41005165], atol=1e-8)
    dA, dW, db = course.conv_backward(Z, cache)
    np.testing.assert_allclose(
        (dA.mean(), dW.mean(), db.mean()), (1.45243777754, 1.72699145831, 7.83923256462), atol=1e-10
    )


def test_published_pool_forward():
    random = np.random.RandomState(1)
    A_prev = random.randn(2, 4, 4, 3)
    hparameters = {"stride": 2, "f": 3}
    largest, _ = course.pool_forward(A_prev, hparameters)
    mean, _ = course.pool_forward(A_prev, hparameters, mode="average")
    np.testing.assert_allclose(
        largest.reshape(2, 3), [[1.74481176, 0.86540763, 1.13376944], [1.13162939, 1.51981682, 2.18557541]], atol=1e-8
    )
    np.testing.assert_allclose(
        mean.reshape(2, 3), [[0.02105773, -0.20328806, -0.40389855], [-0.22154621, 0.51716526, 0.48155844]], atol=1e-8
    )


def test_published_pool_backward():
    random = np.random.RandomState(1)
    A, cache = course.pool_forward(random.randn(5, 5, 3, 2), {"stride": 1, "f": 2})
    dA = random.randn(5, 4, 2, 2)
    assert A.shape == dA.shape and np.isclose(dA.mean(), 0.145713902729, atol=1e-12)
    np.testing.assert_allclose(
        course.pool_backward(dA, cache, mode="max")[1, 1], [[0, 0], [5.05844394, -1.68282702], [0, 0]], atol=1e-8
    )
    np.testing.assert_allclose(
        course.pool_backward(dA, cache, mode="average")[1, 1],
        [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]],
        atol=1e-8,
    )


def test_published_window_helpers():
    random = np.random.RandomState(1)
    x = random.randn(2, 3)
    assert np.array_equal(course.create_mask_from_window(x), [[True, False, False], [False, False, False]])
    assert np.array_equal(course.distribute_value(2, (2, 2)), np.full((2, 2), 0.5))


def test_dtypes_of_the_helpers():
    assert course.zero_pad(np.ones((1, 2, 2, 1), np.float32), 1).dtype == np.float32
    assert course.zero_pad(np.ones((1, 2, 2, 1), int), 1).dtype == int
    window = np.full((2, 2, 1), 0.5, np.float32)
    assert type(course.conv_single_step(window, window, np.ones((1, 1, 1), np.float32))) is np.float32
    assert type(course.conv_single_step(window, window, 1.0)) is np.float32
    assert type(course.conv_single_step(window, window, np.ones((1, 1, 1)))) is np.float64
    assert course.conv_single_step(np.full((2, 1, 1), 3), np.full((2, 1, 1), 2), 1) == 13.0
    assert course.distribute_value(np.float32(3), (1, 2)).dtype == np.float32
    assert np.array_equal(course.distribute_value(3, (1, 2)), [[1.5, 1.5]])
    x = np.ones((1, 2, 2, 1))
    assert not np.shares_memory(course.zero_pad(x, 0), x)


def test_nan_is_in_the_output_and_in_no_mask():
    A_prev = np.array([1.0, np.nan, 2.0, 3.0]).reshape(1, 2, 2, 1)
    A, cache = course.pool_forward(A_prev, {"f": 2, "stride": 1})
    assert np.isnan(A).all()
    assert not course.create_mask_from_window(A_prev).any()
    assert np.all(course.pool_backward(np.ones_like(A), cache) == 0)


NAMES = """
    zero_pad conv_single_step conv_forward conv_backward pool_forward pool_backward create_mask_from_window
    distribute_value
"""


def test_star_import_brings_the_courses_names():
    names = {}
    exec("from fastconv.compat.deeplearning_ai import *", names)
    for name in NAMES.split():
        assert callable(names.pop(name)), name
    assert set(names) == {"__builtins__"}


A, W, B = np.ones((1, 3, 3, 2)), np.ones((2, 2, 2, 4)), np.zeros((1, 1, 1, 4))
HP = {"stride": 1, "pad": 0}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: course.zero_pad(np.ones((3, 3)), 1), ValueError, r"X must be \(m, n_H, n_W, n_C\), got shape \(3, 3\)"),
        (lambda: course.zero_pad(A, -1), ValueError, "pad must be an int >= 0"),
        (lambda: course.zero_pad(A, 1.0), TypeError, "pad must be an int"),
        (lambda: course.zero_pad(A * 1j, 1), TypeError, "X has dtype complex128"),
        (lambda: course.zero_pad(A, 10**18), ValueError, "more than can be addressed"),
        (lambda: course.conv_single_step(A[0], W[..., 0], 0), ValueError, "a_slice_prev and W must have the same shape"),
        (lambda: course.conv_single_step(W[..., 0], W[..., 0], [0, 1]), ValueError, "b must hold one number"),
        (lambda: course.conv_forward(A[0], W, B, HP), ValueError, "A_prev must be"),
        (lambda: course.conv_forward(A, W[0], B, HP), ValueError, r"W must be \(f, f, n_C_prev, n_C\)"),
        (lambda: course.conv_forward(A, W[:, :, :1], B, HP), ValueError, "has 2 channels, but W .* takes 1"),
        (lambda: course.conv_forward(A, W[..., :0], B, HP), ValueError, "no size of 0"),
        (lambda: course.conv_forward(A[..., :0], W, B, HP), ValueError, "A_prev must be .* at least one channel"),
        (lambda: course.conv_forward(A, W, np.zeros(4), HP), ValueError, r"b must be \(1, 1, 1, 4\)"),
        (lambda: course.conv_forward(A, W, B, {"stride": 1}), ValueError, "hparameters must have the key 'pad', got the keys 'stride'"),
        (lambda: course.conv_forward(A, W, B, {}), ValueError, "hparameters must have the key 'stride'"),
        (lambda: course.conv_forward(A, W, B, 1), TypeError, "hparameters must be a dict, got int"),
        (lambda: course.conv_forward(A, W, B, {"stride": 0, "pad": 0}), ValueError, "stride must be an int >= 1"),
        (lambda: course.conv_forward(A, W, B, {"stride": 1, "pad": "same"}), TypeError, "pad must be an int"),
        (lambda: course.conv_forward(A[:, :1], W, B, HP), ValueError, "kernel covers 2 cells"),
        (lambda: course.conv_forward(A, [["a"]], B, HP), TypeError, "W"),
        (lambda: course.conv_backward(A, (A, W)), TypeError, "a tuple of 4"),
        (lambda: course.conv_backward(A, (A, W, B, HP)), ValueError, r"dZ has shape .* \(1, 2, 2, 4\)"),
        (lambda: course.pool_forward(A, {"f": 2, "stride": 1}, "min"), ValueError, "mode must be 'max' or 'average'"),
        (lambda: course.pool_forward(A, {"f": 2, "stride": 1}, A), ValueError, "mode must be"),
        (lambda: course.pool_forward(A, {"f": 4, "stride": 1}), ValueError, "covers 4 cells"),
        (lambda: course.pool_forward(A, {"f": 2.0, "stride": 1}), TypeError, "f must be an int"),
        (lambda: course.pool_forward(A, {"stride": 1}), ValueError, "hparameters must have the key 'f'"),
        (lambda: course.pool_forward(A[0], {"f": 2, "stride": 1}), ValueError, "A_prev must be"),
        (lambda: course.pool_backward(A, A), TypeError, "cache must come from pool_forward"),
        (lambda: course.pool_backward(A, (A, {"f": 2, "stride": 1})), ValueError, "dA has shape"),
        (lambda: course.pool_backward(A, (A, {"f": 3, "stride": 1}), "mean"), ValueError, "mode must be"),
        (lambda: course.create_mask_from_window(np.ones((0, 2))), ValueError, "x must not be empty"),
        (lambda: course.create_mask_from_window("a"), TypeError, "x is a str: "),
        (lambda: course.distribute_value([1, 2], (2, 2)), ValueError, "dz must be one number"),
        (lambda: course.distribute_value(1, (2, 0)), ValueError, r"shape\[1\] must be an int >= 1"),
        (lambda: course.distribute_value(1, 2), TypeError, "shape must be a tuple"),
        (lambda: course.distribute_value(1, (2, 2, 2)), ValueError, r"shape must be two ints, \(n_H, n_W\)"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
