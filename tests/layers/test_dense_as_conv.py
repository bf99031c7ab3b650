"""Fully connected layers as convolutions: a net trained at one size runs on any larger image."""

import re

import numpy as np
import pytest

from fastconv import affine_forward, affine_to_conv, conv, conv_forward, conv_to_affine, max_pool_forward, relu_forward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x_shape", [(5, 4), (3, 4, 5), (2, 3, 2, 4), (12, 1, 1)])
def test_one_layer(x_shape, dtype, rng):
    x = rng.standard_normal((3, *x_shape)).astype(dtype)
    w, b = rng.standard_normal((np.prod(x_shape), 7)).astype(dtype), rng.standard_normal(7).astype(dtype)
    filters = affine_to_conv(w, x_shape)
    assert filters.shape == (7, *x_shape) and filters.dtype == dtype and filters.flags.c_contiguous
    out = conv(x, filters, b)
    assert out.shape == (3, 7, *(1,) * (len(x_shape) - 1))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out.reshape(3, 7), affine_forward(x, w, b)[0], atol=tolerance)
    back = conv_to_affine(filters)
    assert np.array_equal(back, w) and back.flags.c_contiguous
    assert not np.shares_memory(filters, w) and not np.shares_memory(back, filters)


def test_by_hand():
    """Weight (d, m) multiplies value d of the flattened image, in the order channel, row, column."""
    w = np.arange(2 * 2 * 3 * 2).reshape(12, 2)
    filters = affine_to_conv(w, (2, 2, 3))
    assert filters.dtype == np.float64
    for m in range(2):
        for c in range(2):
            for i in range(2):
                for j in range(3):
                    assert filters[m, c, i, j] == w[c * 6 + i * 3 + j, m]


def net_of_layers(x, p):
    h = max_pool_forward(relu_forward(conv_forward(x, p["w1"], p["b1"])[0])[0], kernel_size=2)[0]
    h = max_pool_forward(relu_forward(conv_forward(h, p["w2"], p["b2"])[0])[0], kernel_size=2)[0]
    h = relu_forward(affine_forward(h, p["w3"], p["b3"])[0])[0]
    return affine_forward(h, p["w4"], p["b4"])[0]


def net_of_convolutions(x, p):
    h = max_pool_forward(relu_forward(conv_forward(x, p["w1"], p["b1"])[0])[0], kernel_size=2)[0]
    h = max_pool_forward(relu_forward(conv_forward(h, p["w2"], p["b2"])[0])[0], kernel_size=2)[0]
    h = relu_forward(conv(h, affine_to_conv(p["w3"], (6, 4, 4)), p["b3"]))[0]
    return conv(h, affine_to_conv(p["w4"], (20, 1, 1)), p["b4"])


def test_a_net_on_larger_images(rng):
    """The net for 22x22 images on 34x30 gives, at every 4th place, its result for the window there."""
    shapes = {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (96, 20), "w4": (20, 5)}
    p = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    p |= {f"b{i}": rng.standard_normal(n) for i, n in enumerate((4, 6, 20, 5), 1)}
    x = rng.standard_normal((2, 3, 22, 22))
    np.testing.assert_allclose(net_of_convolutions(x, p)[:, :, 0, 0], net_of_layers(x, p), atol=1e-10)
    large = rng.standard_normal((2, 3, 34, 30))
    scores = net_of_convolutions(large, p)
    assert scores.shape == (2, 5, 4, 3)
    for i in range(4):
        for j in range(3):
            window = large[:, :, 4 * i : 4 * i + 22, 4 * j : 4 * j + 22]
            np.testing.assert_allclose(scores[:, :, i, j], net_of_layers(window, p), atol=1e-10)


W = np.ones((12, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affine_to_conv(W[0], (3, 2, 2)), ValueError, "w must be (D, M), got shape (5,)"),
        (
            lambda: affine_to_conv(W, (3, 2, 3)),
            ValueError,
            "x_shape is (3, 2, 3), with the product 18; legal are (C, *spatial) with one to three spatial axes and the "
            "product 12, which is the number of rows of w (12, 5)",
        ),
        (lambda: affine_to_conv(W, (12,)), ValueError, "x_shape is (12,), with the product 12"),
        (lambda: affine_to_conv(W, (3, 2, 2, 1, 1)), ValueError, "one to three spatial axes"),
        (lambda: affine_to_conv(W, (3, 0, 2)), ValueError, "x_shape[1] must be an int >= 1, got 0"),
        (lambda: affine_to_conv(W, 12), TypeError, "x_shape must be a tuple of ints, got int"),
        (lambda: affine_to_conv(W * 1j, (3, 2, 2)), TypeError, "w has dtype complex128"),
        (lambda: conv_to_affine(W), ValueError, "w must be (F, C, *kernel) with one to three kernel axes, got shape"),
        (lambda: conv_to_affine(np.full((1, 1, 1), "a")), TypeError, "w has dtype"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
