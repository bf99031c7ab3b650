"""Fully connected layers, relu, softmax, combined layers and the gradient checker."""

import numpy as np
import pytest

from fastconv import layers
from fastconv.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array, rel_error


def test_affine_by_hand():
    out, cache = layers.affine_forward([[[1, 2], [3, 4]]], np.eye(4)[:, :2], [10, 20])
    assert np.array_equal(out, [[11, 22]])
    dx, dw, db = layers.affine_backward([[1, 10]], cache)
    assert np.array_equal(dx, [[[1, 10], [0, 0]]])
    assert np.array_equal(dw, np.outer([1, 2, 3, 4], [1, 10]))
    assert np.array_equal(db, [1, 10])


#: Gradients checked by central differences: forward, backward, the shapes of the arrays, and the other arguments.
GRADIENTS = {
    "affine": (layers.affine_forward, layers.affine_backward, [(3, 2, 4), (8, 5), (5,)], ()),
    "affine_relu": (layers.affine_relu_forward, layers.affine_relu_backward, [(3, 2, 4), (8, 5), (5,)], ()),
    "relu": (layers.relu_forward, layers.relu_backward, [(3, 4)], ()),
    "conv_relu": (
        layers.conv_relu_forward,
        layers.conv_relu_backward,
        [(2, 3, 5, 4), (4, 3, 3, 3), (4,)],
        ({"stride": 1, "pad": 1},),
    ),
    "conv_relu_pool": (
        layers.conv_relu_pool_forward,
        layers.conv_relu_pool_backward,
        [(2, 3, 6, 8), (4, 3, 3, 3), (4,)],
        ({"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}),
    ),
    "conv_bn_relu": (
        layers.conv_bn_relu_forward,
        layers.conv_bn_relu_backward,
        [(2, 3, 5, 4), (4, 3, 3, 3), (4,), (4,), (4,)],
        ({"stride": 1, "pad": 1}, {"mode": "train"}),
    ),
}


@pytest.mark.parametrize(("forward", "backward", "arrays", "rest"), GRADIENTS.values(), ids=GRADIENTS)
def test_gradients(forward, backward, arrays, rest, rng):
    arrays = [rng.standard_normal(shape) for shape in arrays]
    out, cache = forward(*arrays, *rest)
    dout = rng.standard_normal(out.shape)
    gradients = backward(dout, cache)
    for array, gradient in zip(arrays, gradients if isinstance(gradients, tuple) else (gradients,), strict=True):
        numeric = eval_numerical_gradient_array(lambda _: forward(*arrays, *rest)[0], array, dout)
        # The gradient of a bias before a normalisation is 0, up to rounding.
        assert rel_error(numeric, gradient) < 1e-5 or np.abs(numeric - gradient).max() < 1e-8
    single, cache = forward(*(a.astype(np.float32) for a in arrays), *rest)
    assert single.dtype == np.float32
    gradients = backward(dout, cache)
    assert all(g.dtype == np.float32 for g in (gradients if isinstance(gradients, tuple) else (gradients,)))


def test_relu_edges():
    out, cache = layers.relu_forward(np.array([-1.0, 0.0, np.nan, np.inf, -np.inf]))
    assert np.array_equal(out, [0, 0, np.nan, np.inf, 0], equal_nan=True)
    assert np.array_equal(layers.relu_backward(np.full(5, np.inf), cache), [0, 0, 0, np.inf, 0])


def test_softmax(rng):
    x, y = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2])
    loss, dx = layers.softmax_loss(x, y)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    assert np.isclose(loss, -np.log(p[np.arange(4), y]).mean())
    numeric = eval_numerical_gradient(lambda x: layers.softmax_loss(x, y)[0], x, verbose=False)
    assert rel_error(numeric, dx) < 1e-6
    assert layers.softmax_loss(x.astype(np.float32), y)[1].dtype == np.float32
    loss, dx = layers.softmax_loss(np.array([[1e4, -1e4]]), [1])
    assert loss == 2e4 and np.array_equal(dx, [[1, -1]])
    loss, dx = layers.softmax_loss(np.empty((0, 3)), np.empty(0, int))
    assert loss == 0 and dx.shape == (0, 3)


def test_svm(rng):
    loss, dx = layers.svm_loss([[3.0, 2.5, 0.0], [1.0, 5.0, 4.5]], [0, 2])
    # Margins: 0.5 and none; 1.5 and none. Each margin has a gradient by two scores.
    assert loss == (0.5 + 1.5) / 2
    assert np.array_equal(dx, [[-0.5, 0.5, 0], [0, 0.5, -0.5]])
    x, y = rng.standard_normal((6, 5)), np.array([0, 4, 2, 2, 1, 0])
    loss, dx = layers.svm_loss(x, y)
    total = sum(max(0, x[i, j] - x[i, y[i]] + 1) for i in range(6) for j in range(5) if j != y[i])
    assert np.isclose(loss, total / 6)
    numeric = eval_numerical_gradient(lambda x: layers.svm_loss(x, y)[0], x, verbose=False)
    assert rel_error(numeric, dx) < 1e-6
    assert layers.svm_loss(x.astype(np.float32), y)[1].dtype == np.float32
    loss, dx = layers.svm_loss(np.empty((0, 3)), np.empty(0, int))
    assert loss == 0 and dx.shape == (0, 3)


def test_conv_bn_relu_is_the_three_layers(rng):
    x, w, gamma, beta = (rng.standard_normal(s) for s in ((2, 3, 9), (4, 3, 3), (4,), (4,)))
    bn_param, own = {"mode": "train"}, {"mode": "train"}
    out, cache = layers.conv_bn_relu_forward(x, w, None, gamma, beta, {"pad": 1}, bn_param)
    a, conv_cache = layers.conv_forward(x, w, None, pad=1)
    s, bn_cache = layers.spatial_batchnorm_forward(a, gamma, beta, own)
    assert np.array_equal(out, np.maximum(s, 0)) and len(cache) == 3
    assert np.array_equal(bn_param["running_var"], own["running_var"])
    dx, dw, db, dgamma, dbeta = layers.conv_bn_relu_backward(out, cache)
    da, *expected = layers.spatial_batchnorm_backward(out * (s > 0), bn_cache)
    assert np.array_equal(dgamma, expected[0]) and np.array_equal(dbeta, expected[1]) and db is None
    assert np.array_equal(dx, layers.conv_backward(da, conv_cache)[0])
    assert np.array_equal(dw, layers.conv_backward(da, conv_cache)[1])
    # In test mode the running averages are used, and do not change.
    bn_param["mode"] = "test"
    tested, _ = layers.conv_bn_relu_forward(x, w, None, gamma, beta, {"pad": 1}, bn_param)
    assert not np.allclose(tested, out) and np.array_equal(bn_param["running_mean"], own["running_mean"])


def test_conv_without_bias_in_a_sandwich(rng):
    x, w = rng.standard_normal((1, 1, 6)), rng.standard_normal((2, 1, 3))
    out, cache = layers.conv_relu_forward(x, w, None, pad=1)
    assert layers.conv_relu_backward(out, cache)[2] is None
