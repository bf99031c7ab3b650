"""The CS231n pack against plain implementations of the course's definitions."""

import pickle

import numpy as np
import pytest

from fastconv.compat import cs231n
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error

LAYERS = [
    ((2, 3, 5, 5), (4, 3, 3, 3), 1, 1),
    ((3, 2, 7, 6), (2, 2, 3, 2), 2, 1),  # not square, does not tile
    ((2, 1, 9, 8), (3, 1, 4, 4), 3, 0),
    ((2, 3, 4, 4), (5, 3, 1, 1), 1, 0),
    ((1, 2, 5, 5), (2, 2, 3, 3), 1, 3),
    ((0, 2, 5, 5), (2, 2, 3, 3), 1, 1),
]
layers = pytest.mark.parametrize(("x_shape", "w_shape", "stride", "pad"), LAYERS)
FORMS = ["naive", "im2col", "strides", "fast"]


def plain_columns(x, height, width, pad, stride):
    """The columns as an array cols[c, kh, kw, n, oh, ow]."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    OH, OW = ((padded.shape[a] - k) // stride + 1 for a, k in ((2, height), (3, width)))
    cols = np.empty((x.shape[1], height, width, x.shape[0], OH, OW), x.dtype)
    for kh, kw, oh, ow in np.ndindex(height, width, OH, OW):
        cols[:, kh, kw, :, oh, ow] = padded[:, :, oh * stride + kh, ow * stride + kw].T
    return cols


def plain_image(cols, shape, pad, stride):
    """The adjoint of `plain_columns`."""
    N, C, H, W = shape
    padded = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    for kh, kw, oh, ow in np.ndindex(*cols.shape[1:3], *cols.shape[4:]):
        padded[:, :, oh * stride + kh, ow * stride + kw] += cols[:, kh, kw, :, oh, ow].T
    return padded[:, :, pad : pad + H, pad : pad + W]


@layers
def test_lowering(x_shape, w_shape, stride, pad, rng):
    x = rng.standard_normal(x_shape)
    C, (HH, WW) = x_shape[1], w_shape[2:]
    expected = plain_columns(x, HH, WW, pad, stride)
    rows = C * HH * WW
    oh_ow_n = expected.transpose(0, 1, 2, 4, 5, 3).reshape(rows, int(np.prod(expected.shape[3:])))
    assert np.array_equal(cs231n.im2col_indices(x, HH, WW, padding=pad, stride=stride), oh_ow_n)
    assert np.array_equal(cs231n.im2col_cython(x, HH, WW, pad, stride), oh_ow_n)
    k, i, j = cs231n.get_im2col_indices(x_shape, HH, WW, pad, stride)
    picked = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))[:, k, i, j]
    assert np.array_equal(picked.transpose(1, 2, 0).reshape(oh_ow_n.shape), oh_ow_n)

    values = rng.standard_normal(expected.shape)
    image = plain_image(values, x_shape, pad, stride)
    flat = values.transpose(0, 1, 2, 4, 5, 3).reshape(oh_ow_n.shape)
    np.testing.assert_allclose(cs231n.col2im_indices(flat, x_shape, HH, WW, pad, stride), image, atol=1e-12)
    np.testing.assert_allclose(cs231n.col2im_cython(flat, *x_shape, HH, WW, pad, stride), image, atol=1e-12)
    np.testing.assert_allclose(cs231n.col2im_6d_cython(values, *x_shape, HH, WW, pad, stride), image, atol=1e-12)


def test_lowering_defaults():
    x = np.ones((1, 1, 4, 4))
    assert cs231n.im2col_indices(x, 3, 3).shape == (9, 16)
    assert cs231n.col2im_indices(np.ones((9, 16)), x.shape).shape == x.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
@layers
def test_conv(form, x_shape, w_shape, stride, pad, dtype, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    conv_param = {"stride": stride, "pad": pad}
    forward, backward = getattr(cs231n, f"conv_forward_{form}"), getattr(cs231n, f"conv_backward_{form}")
    cols = plain_columns(x, *w_shape[2:], pad, stride)
    expected = np.einsum("fckl,cklnhw->nfhw", w, cols) + b[:, None, None]
    out, cache = forward(x, w, b, conv_param)
    assert out.dtype == dtype and out.flags.c_contiguous
    np.testing.assert_allclose(out, expected, atol=1e-5)

    assert isinstance(cache, tuple) and len(cache) == (4 if form == "naive" else 5)
    assert cache[0] is x and cache[1] is w and cache[2] is b and cache[3] is conv_param
    if form != "naive":
        order = (0, 1, 2, 4, 5, 3) if form == "im2col" else (0, 1, 2, 3, 4, 5)
        assert np.array_equal(cache[4], cols.transpose(order).reshape(cache[4].shape))

    dout = rng.standard_normal(out.shape).astype(dtype)
    dx, dw, db = backward(dout, cache)
    assert dx.dtype == dw.dtype == db.dtype == dtype
    dcols = np.einsum("fckl,nfhw->cklnhw", w, dout)
    np.testing.assert_allclose(dx, plain_image(dcols, x_shape, pad, stride), atol=1e-4)
    np.testing.assert_allclose(dw, np.einsum("nfhw,cklnhw->fckl", dout, cols), atol=1e-4)
    np.testing.assert_allclose(db, dout.sum(axis=(0, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_conv_layouts_and_dtypes(form, rng):
    x, w, b = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(4)
    forward, backward = getattr(cs231n, f"conv_forward_{form}"), getattr(cs231n, f"conv_backward_{form}")
    param = {"stride": 2, "pad": 1}
    out, cache = forward(x, w, b, param)
    again, cache_f = forward(np.asfortranarray(x), np.asfortranarray(w), b, param)
    assert np.array_equal(out, again)
    for a, c in zip(backward(out, cache), backward(np.asfortranarray(out), cache_f), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-12)
    ints = (10 * x).astype(int), (10 * w).astype(np.float32), np.arange(4)
    out, cache = forward(*ints, param)
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, forward(*(a.astype(float) for a in ints), param)[0])
    assert all(g.dtype == np.float64 for g in backward(out, cache))


@pytest.mark.parametrize("form", FORMS)
def test_arrays_changed_in_place_between_calls(form, rng):
    x, w, b = rng.standard_normal((1, 1, 5, 5)), rng.standard_normal((2, 1, 3, 3)), np.zeros(2)
    forward = getattr(cs231n, f"conv_forward_{form}")
    first = forward(x, w, b, {"stride": 1, "pad": 1})[0]
    w *= 2
    np.testing.assert_allclose(forward(x, w, b, {"stride": 1, "pad": 1})[0], 2 * first)


def test_one_row_of_padding(rng):
    """Images of one row whose single row of outputs lies in the padding."""
    x, w = rng.standard_normal((1, 1, 1, 2)), np.ones((1, 1, 1, 2))
    for form in FORMS:
        out, cache = getattr(cs231n, f"conv_forward_{form}")(x, w, np.zeros(1), {"stride": 3, "pad": 1})
        assert np.all(out == 0)
        assert all(np.all(g == 0) for g in getattr(cs231n, f"conv_backward_{form}")(np.ones_like(out), cache)[:2])


def test_huge_stride():
    assert cs231n.im2col_indices(np.ones((1, 1, 4, 4)), 3, 3, 1, 10**30).shape == (9, 1)
    assert cs231n.get_im2col_indices((1, 1, 4, 4), 3, 3, 1, 10**30)[1].shape == (9, 1)


POOLS = [
    ((2, 3, 8, 8), 2, 2, 2),
    ((2, 3, 7, 8), 3, 2, 2),
    ((2, 2, 6, 6), 3, 3, 1),
    ((2, 2, 7, 7), 2, 2, 3),
    ((0, 2, 4, 4), 2, 2, 2),
]


@pytest.mark.parametrize("form", ["naive", "im2col", "fast", "reshape"])
@pytest.mark.parametrize(("shape", "height", "width", "stride"), POOLS)
def test_max_pool(form, shape, height, width, stride, rng):
    tiles = height == width == stride and shape[2] % height == 0 == shape[3] % width
    forward, backward = getattr(cs231n, f"max_pool_forward_{form}"), getattr(cs231n, f"max_pool_backward_{form}")
    x = rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1
    param = {"pool_height": height, "pool_width": width, "stride": stride}
    if form == "reshape" and not tiles:
        with pytest.raises(ValueError, match="must be equal and divide H and W"):
            forward(x, param)
        return
    cols = plain_columns(x, height, width, 0, stride)
    # Per channel, first (kh, kw), then the maximum over both.
    expected = cols.max(axis=(1, 2)).transpose(1, 0, 2, 3) if x.size else np.empty((0, 2, 2, 2))
    out, cache = forward(x, param)
    assert np.array_equal(out, expected) and out.flags.c_contiguous
    dout = rng.standard_normal(out.shape)
    dx = backward(dout, cache)
    numeric = eval_numerical_gradient_array(lambda x: forward(x, param)[0], x, dout)
    assert rel_error(numeric, dx) < 1e-7
    single, cache32 = forward(x.astype(np.float32), param)
    assert single.dtype == np.float32 == backward(dout, cache32).dtype
    ints, cache_int = forward((10 * x).astype(int), param)
    assert np.array_equal(ints, np.trunc(10 * out)) and backward(dout, cache_int).shape == shape

    inner = cache
    if form == "fast":
        assert cache[0] == ("reshape" if tiles else "im2col")
        inner = cache[1]
    kind = cache[0] if form == "fast" else form
    assert inner[0] is x
    if kind == "naive":
        assert len(inner) == 2 and inner[1] is param
    elif kind == "reshape":
        assert len(inner) == 3 and inner[1].shape == (*shape[:2], shape[2] // 2, 2, shape[3] // 2, 2)
        assert np.array_equal(inner[2], out)
    else:
        assert len(inner) == 4 and inner[3] is param
        assert inner[1].shape == (height * width, out.size) and inner[2].shape == (out.size,)
        order = cols.transpose(1, 2, 4, 5, 3, 0).reshape(inner[1].shape)
        assert np.array_equal(inner[1], order) and np.array_equal(inner[2], order.argmax(axis=0))


def test_ties():
    """`reshape` divides a gradient among equal maxima; the other methods give it to the first one."""
    x, dout = np.ones((1, 1, 2, 2)), np.full((1, 1, 1, 1), 8.0)
    param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    for form, expected in (
        ("reshape", [[2, 2], [2, 2]]),
        ("fast", [[2, 2], [2, 2]]),
        ("im2col", [[8, 0], [0, 0]]),
        ("naive", [[8, 0], [0, 0]]),
    ):
        _, cache = getattr(cs231n, f"max_pool_forward_{form}")(x, param)
        assert np.array_equal(getattr(cs231n, f"max_pool_backward_{form}")(dout, cache)[0, 0], expected)


def test_nan_in_a_tiled_window():
    out, cache = cs231n.max_pool_forward_fast(
        np.array([[[[1, np.nan], [2, 3]]]]), {"pool_height": 2, "pool_width": 2, "stride": 2}
    )
    assert np.isnan(out).all()
    assert np.array_equal(cs231n.max_pool_backward_fast(np.ones_like(out), cache)[0, 0], [[0, 1], [0, 0]])


def test_sandwiches(rng):
    x, w, b = rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((3, 3, 3, 3)), rng.standard_normal(3)
    conv_param, pool_param = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
    for name, rest, count in (("conv_relu", (conv_param,), 2), ("conv_relu_pool", (conv_param, pool_param), 3)):
        forward, backward = getattr(cs231n, f"{name}_forward"), getattr(cs231n, f"{name}_backward")
        out, cache = forward(x, w, b, *rest)
        assert len(cache) == count and len(cache[0]) == 5
        assert count == 2 or cache[2][0] == "reshape"
        dout = rng.standard_normal(out.shape)
        for array, gradient in zip((x, w, b), backward(dout, cache), strict=True):
            numeric = eval_numerical_gradient_array(
                lambda _, call=forward, rest=rest: call(x, w, b, *rest)[0], array, dout
            )
            assert rel_error(numeric, gradient) < 1e-5


def plain_batchnorm(x, gamma, beta, axes, eps=1e-5):
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + eps) + beta


def test_norms_as_the_notebooks_check_them(rng):
    """Means and standard deviations after normalisation: in training mode, and in test mode after many batches."""
    a = np.maximum(rng.standard_normal((200, 50)) @ rng.standard_normal((50, 60)), 0) @ rng.standard_normal((60, 3))
    gamma, beta = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    out, _ = cs231n.batchnorm_forward(a, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=0), beta, atol=1e-9)
    np.testing.assert_allclose(out.std(axis=0), gamma, rtol=1e-5)
    bn_param = {"mode": "train"}
    for _ in range(50):
        batch = rng.standard_normal((200, 3)) * [1, 4, 9] + [5, 0, -5]
        cs231n.batchnorm_forward(batch, np.ones(3), np.zeros(3), bn_param)
    bn_param["mode"] = "test"
    out, _ = cs231n.batchnorm_forward(batch, np.ones(3), np.zeros(3), bn_param)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=0.25)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=0.25)

    out, _ = cs231n.layernorm_forward(a, 3 * np.ones(3), 5 * np.ones(3), {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=1), 5, atol=1e-9)
    np.testing.assert_allclose(out.std(axis=1), 3, rtol=1e-2)

    x = 4 * rng.standard_normal((2, 6, 4, 5)) + 10
    gamma, beta = 2 * np.ones((1, 6, 1, 1)), 3 * np.ones((1, 6, 1, 1))
    out, cache = cs231n.spatial_groupnorm_forward(x, gamma, beta, 2, {"mode": "train"})
    grouped = out.reshape(4, -1)
    np.testing.assert_allclose(grouped.mean(axis=1), 3, atol=1e-9)
    np.testing.assert_allclose(grouped.std(axis=1), 2, rtol=1e-5)
    assert [g.shape for g in cs231n.spatial_groupnorm_backward(out, cache)] == [x.shape, gamma.shape, beta.shape]

    dout = rng.standard_normal((200, 3))
    _, cache = cs231n.batchnorm_forward(a, np.ones(3), np.zeros(3), {"mode": "train"})
    both = zip(cs231n.batchnorm_backward(dout, cache), cs231n.batchnorm_backward_alt(dout, cache), strict=True)
    assert all(rel_error(*pair) < 1e-12 for pair in both)


def test_conv_bn_relu(rng):
    x, w, b = rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((3, 3, 3, 3)), rng.standard_normal(3)
    gamma, beta, conv_param = rng.standard_normal(3), rng.standard_normal(3), {"stride": 1, "pad": 1}

    def forward():
        return cs231n.conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, {"mode": "train"})

    out, cache = forward()
    conv, _ = cs231n.conv_forward_naive(x, w, b, conv_param)
    over = (slice(None), None, None)
    np.testing.assert_allclose(
        out, np.maximum(plain_batchnorm(conv, gamma[over], beta[over], (0, 2, 3)), 0), atol=1e-10
    )
    assert len(cache) == 3 and len(cache[0]) == 5 and isinstance(cache[2], np.ndarray)
    dout = rng.standard_normal(out.shape)
    for array, gradient in zip((x, w, b, gamma, beta), cs231n.conv_bn_relu_backward(dout, cache), strict=True):
        numeric = eval_numerical_gradient_array(lambda _: forward()[0], array, dout)
        np.testing.assert_allclose(gradient, numeric, atol=1e-6)


class Net:
    """A net as a student would write it: conv - bn - relu - pool - affine - group norm - relu - dropout - affine."""

    def __init__(self, rng, dtype):
        shapes = {"W1": (6, 2, 3, 3), "b1": 6, "W2": (6 * 3 * 3, 10), "b2": 10, "W3": (10, 3), "b3": 3}
        self.params = {name: 0.3 * rng.standard_normal(shape) for name, shape in shapes.items()}
        self.params |= {"gamma1": np.ones(6), "beta1": np.zeros(6)}
        self.params |= {"gamma2": np.ones((1, 10, 1, 1)), "beta2": np.zeros((1, 10, 1, 1))}
        self.params = {name: value.astype(dtype) for name, value in self.params.items()}
        self.bn_params = [{"mode": "train"}]
        self.dropout_param = {"mode": "train", "p": 0.8, "seed": 5}
        self.loss_function = cs231n.softmax_loss

    def loss(self, X, y=None):
        p, grads = self.params, {}
        self.bn_params[0]["mode"] = self.dropout_param["mode"] = "test" if y is None else "train"
        conv_param, pool_param = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
        h, cache1 = cs231n.conv_bn_relu_forward(
            X, p["W1"], p["b1"], p["gamma1"], p["beta1"], conv_param, self.bn_params[0]
        )
        h, pool_cache = cs231n.max_pool_forward_fast(h, pool_param)
        h, cache2 = cs231n.affine_forward(h, p["W2"], p["b2"])
        h, gn_cache = cs231n.spatial_groupnorm_forward(h[:, :, None, None], p["gamma2"], p["beta2"], 2, {})
        h, relu_cache = cs231n.relu_forward(h[:, :, 0, 0])
        h, dropout_cache = cs231n.dropout_forward(h, self.dropout_param)
        scores, cache3 = cs231n.affine_forward(h, p["W3"], p["b3"])
        if y is None:
            return scores
        loss, dscores = self.loss_function(scores, y)
        dh, grads["W3"], grads["b3"] = cs231n.affine_backward(dscores, cache3)
        dh = cs231n.relu_backward(cs231n.dropout_backward(dh, dropout_cache), relu_cache)
        dh, grads["gamma2"], grads["beta2"] = cs231n.spatial_groupnorm_backward(dh[:, :, None, None], gn_cache)
        dh, grads["W2"], grads["b2"] = cs231n.affine_backward(dh[:, :, 0, 0], cache2)
        dh = cs231n.max_pool_backward_fast(dh, pool_cache)
        _, *gradients = cs231n.conv_bn_relu_backward(dh, cache1)
        grads.update(zip(("W1", "b1", "gamma1", "beta1"), gradients, strict=True))
        return loss, grads


def course_data(rng, dtype):
    y = rng.integers(0, 3, 60)
    X = rng.standard_normal((60, 2, 6, 6))
    X[np.arange(60), y % 2, y, :] += 2
    return X.astype(dtype), y


@pytest.mark.parametrize("loss", [cs231n.softmax_loss, cs231n.svm_loss])
def test_a_nets_gradients(loss, rng):
    net, (X, y) = Net(rng, np.float64), (array[:20] for array in course_data(rng, np.float64))
    net.loss_function = loss
    _, grads = net.loss(X, y)
    for name, value in net.params.items():
        numeric = cs231n.eval_numerical_gradient(lambda _: net.loss(X, y)[0], value, verbose=False)
        np.testing.assert_allclose(grads[name], numeric, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_net_under_the_solver(dtype, rng):
    """The steps of the course's Solver: batches, an update rule that works in place, checkpoints, testing."""
    net, (X, y) = Net(rng, dtype), course_data(rng, dtype)
    velocity = {name: np.zeros_like(value) for name, value in net.params.items()}
    history = []
    for _ in range(60):
        batch = rng.choice(60, 30)
        loss, grads = net.loss(X[batch], y[batch])
        assert type(loss) is float
        history.append(loss)
        assert set(grads) == set(net.params)
        for name, dw in grads.items():
            w = net.params[name]
            assert dw.shape == w.shape and dw.dtype == dtype and dw.flags.writeable and not np.shares_memory(dw, w)
            dw *= 0.1  # the learning rate
            velocity[name] = 0.9 * velocity[name] - dw
            w += velocity[name]
    assert np.mean(history[-10:]) < 0.5 * np.mean(history[:5])
    saved = pickle.loads(pickle.dumps(net.bn_params))
    scores = net.loss(X)
    assert scores.dtype == dtype and (scores.argmax(axis=1) == y).mean() > 0.85
    net.bn_params = saved
    assert np.array_equal(net.loss(X), scores)


COURSE_NAMES = """
    conv_forward_naive conv_backward_naive conv_forward_im2col conv_backward_im2col conv_forward_strides
    conv_backward_strides conv_forward_fast conv_backward_fast max_pool_forward_naive
    max_pool_backward_naive max_pool_forward_fast max_pool_backward_fast max_pool_forward_reshape
    max_pool_backward_reshape max_pool_forward_im2col max_pool_backward_im2col get_im2col_indices
    im2col_indices col2im_indices im2col_cython col2im_cython col2im_6d_cython conv_relu_forward
    conv_relu_backward conv_relu_pool_forward conv_relu_pool_backward affine_relu_forward
    affine_relu_backward affine_forward affine_backward relu_forward relu_backward softmax_loss
    eval_numerical_gradient eval_numerical_gradient_array eval_numerical_gradient_blobs
    eval_numerical_gradient_net grad_check_sparse rel_error
    batchnorm_forward batchnorm_backward batchnorm_backward_alt layernorm_forward layernorm_backward
    dropout_forward dropout_backward spatial_batchnorm_forward spatial_batchnorm_backward
    spatial_groupnorm_forward spatial_groupnorm_backward svm_loss conv_bn_relu_forward conv_bn_relu_backward
"""


def test_star_import_brings_the_courses_names():
    names = {}
    exec("from fastconv.compat.cs231n import *", names)
    for name in COURSE_NAMES.split():
        assert callable(names[name]), name


CONV = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), [0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: cs231n.conv_forward_fast(
                np.ones((1, 1, 3, 3)), np.ones((1, 2, 3, 3)), [0], {"stride": 1, "pad": 0}
            ),
            ValueError,
            "has 1 channel, but w",
        ),
        (
            lambda: cs231n.conv_forward_fast(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), [0], {"stride": 1}),
            ValueError,
            "conv_param has no 'pad'",
        ),
        (
            lambda: cs231n.conv_forward_naive(
                np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), [0], {"stride": 1, "pad": 1.5}
            ),
            TypeError,
            "pad must be an int",
        ),
        (
            lambda: cs231n.conv_forward_im2col(
                np.ones((1, 1, 3, 3)), np.ones((1, 1, 5, 3)), [0], {"stride": 1, "pad": 0}
            ),
            ValueError,
            "kernel covers 5 cells",
        ),
        (
            lambda: cs231n.conv_forward_im2col(
                np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), [0, 0], {"stride": 1, "pad": 0}
            ),
            ValueError,
            r"b must be \(1,\)",
        ),
        (lambda: cs231n.conv_backward_fast(np.ones((1, 1, 3, 3)), (1, 2)), TypeError, "a tuple of 5"),
        (lambda: cs231n.im2col_indices(np.ones((1, 3, 3)), 3, 3), ValueError, r"x must be \(N, C, H, W\)"),
        (lambda: cs231n.col2im_indices(np.ones((9, 4)), (1, 1, 3, 3)), ValueError, r"cols must have shape \(9, 9\)"),
        (
            lambda: cs231n.col2im_6d_cython(np.ones((1, 3, 3, 1, 2, 2)), 1, 1, 3, 3, 3, 3, 1, 1),
            ValueError,
            r"is \(1, 3, 3, 1, 3, 3\)",
        ),
        (
            lambda: cs231n.max_pool_forward_fast(np.ones((1, 1, 3, 3)), {"pool_height": 2, "stride": 2}),
            ValueError,
            "no 'pool_width'",
        ),
        (
            lambda: cs231n.max_pool_forward_fast(
                np.ones((1, 1, 3, 3)), {"pool_height": 4, "pool_width": 2, "stride": 2}
            ),
            ValueError,
            "kernel covers 4 cells",
        ),
        (
            lambda: cs231n.conv_forward_naive(*CONV, {"pads": 1}),
            TypeError,
            r"^conv_forward_naive\(\) got an unknown option 'pads'; known are stride, pad",
        ),
        (
            lambda: cs231n.conv_backward_im2col(np.ones(1), (*CONV, 1, [])),
            TypeError,
            "^conv_param must be a dict {'stride': int, 'pad': int}, got int$",
        ),
        (
            lambda: cs231n.max_pool_forward_im2col(CONV[0], {"pool_hight": 2}),
            TypeError,
            r"^max_pool_forward_im2col\(\) got .*; did you mean 'pool_height'",
        ),
        (lambda: cs231n.max_pool_backward_fast(np.ones(1), ("magic", ())), ValueError, "magic"),
        (lambda: cs231n.max_pool_backward_fast(np.ones(1), ([], ())), ValueError, "the first item of cache must be"),
        (
            lambda: cs231n.max_pool_backward_reshape(np.ones(1), (1, 2, 3)),
            ValueError,
            r"cache holds x \(\), x_reshaped \(\) and out \(\)",
        ),
        (lambda: cs231n.get_im2col_indices((1, 1, -3, 4), 1, 1, 3), ValueError, r"x_shape\[2\] must be an int >= 0"),
        (lambda: cs231n.get_im2col_indices(("a", 1, 2, 3), 3, 3), TypeError, r"x_shape\[0\] must be an int"),
        (lambda: cs231n.col2im_indices(np.ones((27, 32)), (2, 3, 4.0, 4), 3, 3), TypeError, r"x_shape\[2\]"),
        (
            lambda: cs231n.conv_forward_fast(np.ones((1, 1, 3, 3)), np.ones((0, 1, 3, 3)), [], {"stride": 1, "pad": 0}),
            ValueError,
            "at least one filter",
        ),
        (
            lambda: cs231n.conv_forward_fast(
                np.ones((1, 0, 3, 3)), np.ones((1, 0, 3, 3)), [0], {"stride": 1, "pad": 0}
            ),
            ValueError,
            "at least one channel",
        ),
        (
            lambda: cs231n.max_pool_backward_im2col(
                np.ones((1, 1, 1, 1)),
                (np.ones((1, 1, 2, 2)), np.ones((4, 2)), [0], {"pool_height": 2, "pool_width": 2, "stride": 2}),
            ),
            ValueError,
            "x_cols and x_cols_argmax in cache must have shapes",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
