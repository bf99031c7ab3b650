"""The inputs that the 11-785 pack accepts, the order of its arguments, and the inputs that it refuses."""

import numpy as np
import pytest
from test_compat_cmu11785 import composed_conv, composed_transposed, inner, make

from fastconv.compat import cmu11785 as course


def test_orders_and_mixed_input(rng):
    A = rng.integers(-5, 5, (2, 3, 6, 7))
    for name, composed, last in (("Conv2d", composed_conv, (2, 0)), ("ConvTranspose2d", composed_transposed, (2,))):
        layer, W, b = make(name, rng, np.float32, 3, 4, 3, 2)
        expected, gradients = composed(A, W.astype(float), b.astype(float), *last)
        layer.W = np.asfortranarray(W)
        assert inner(layer).W is layer.W
        Z = layer.forward(np.asfortranarray(A))
        assert Z.dtype == np.float64
        np.testing.assert_allclose(Z, expected, atol=1e-10)
        dLdZ = np.asfortranarray(rng.integers(-5, 5, Z.shape).astype(">i4"))
        dLdA = layer.backward(dLdZ)
        for gradient, wanted in zip((dLdA, layer.dLdW, layer.dLdb), gradients(dLdZ), strict=True):
            assert gradient.dtype == np.float64
            np.testing.assert_allclose(gradient, wanted, atol=1e-10)


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"])
def test_arrays_changed_in_place(name, rng):
    layer, W, _ = make(name, rng, float, 2, 3, 3, 2)
    A = rng.standard_normal((2, 2, 6, 5)[: W.ndim])
    first = layer.forward(A)
    layer.b *= 0
    W *= 2
    second = layer.forward(A)
    third = layer.forward(2 * A)
    np.testing.assert_allclose(third, 2 * second)
    assert not np.allclose(first, second)
    layer.forward(A)
    layer.backward(second)
    kept = layer.dLdW.copy()
    # The padded or upsampled input is a copy in the course, too.
    layer.forward(A)
    A *= 0
    layer.backward(second)
    np.testing.assert_allclose(layer.dLdW, kept)
    layer.dLdW = layer.dLdb = None
    assert inner(layer).dLdW is None and inner(layer).dLdb is None


def test_weights_of_another_size(rng):
    """Weights that the user sets need not be square, whatever `kernel_size` says."""
    layer = course.Conv2d(2, 3, 3, 2)
    layer.conv2d_stride1.W, layer.conv2d_stride1.b = rng.standard_normal((4, 2, 2, 3)), np.ones(4)
    A = rng.standard_normal((1, 2, 6, 7))
    expected, gradients = composed_conv(A, layer.W, layer.b, 2, 0)
    Z = layer.forward(A)
    np.testing.assert_allclose(Z, expected, atol=1e-12)
    np.testing.assert_allclose(layer.backward(Z), gradients(Z)[0], atol=1e-12)
    assert layer.dLdW.shape == (4, 2, 2, 3)


A1, A2 = np.ones((1, 2, 5)), np.ones((1, 2, 5, 5))


def after_forward(layer, A=A2):
    layer.forward(A)
    return layer


def with_weights(W, b):
    layer = course.Conv2d(2, 3, 2, 1)
    layer.W, layer.b = W, b
    return layer


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: course.Conv1d(0, 1, 1, 1), ValueError, "in_channels must be an int >= 1"),
        (lambda: course.Conv1d(1, 1.0, 1, 1), TypeError, "out_channels must be an int"),
        (lambda: course.Conv1d(1, 1, 0, 1), ValueError, "kernel_size must be an int >= 1"),
        (lambda: course.Conv2d(1, 1, (2, 2, 2), 1), ValueError, "kernel_size has 3 values"),
        (lambda: course.Conv2d(1, 1, 2, 0), ValueError, "stride must be an int >= 1"),
        (lambda: course.Conv2d(1, 1, 2, 1, -1), ValueError, "padding must be an int >= 0"),
        (lambda: course.Conv2d(1, 1, 2, 1, 0.5), TypeError, "padding must be an int"),
        (lambda: course.Conv2d(1, 1, 2, 1, 0, 3), TypeError, "weight_init_fn must be a function or None, got int"),
        (lambda: course.Conv2d(1, 2, 3, 1, 0, lambda *s: np.ones(3)), ValueError,
         r"weight_init_fn\(2, 1, 3, 3\) must return .* got shape \(3,\)"),
        (lambda: course.Conv2d(1, 2, 3, 1, 0, lambda *s: None), TypeError, "the result of weight_init_fn"),
        (lambda: course.Conv2d(1, 2, 3, 1, 0, None, lambda n: np.ones((n, 1))), ValueError, "bias_init_fn"),
        (lambda: course.Conv1d(2, 3, 2, 1).forward(A2), ValueError, r"A must be \(batch_size, in_channels, input_size\)"),
        (lambda: course.Conv2d(2, 3, 2, 1).forward(A1), ValueError, r"A must be .*got shape \(1, 2, 5\)"),
        (lambda: course.Conv2d(3, 3, 2, 1).forward(A2), ValueError, "A .* has 2 channels, but W .* takes 3"),
        (lambda: course.Conv2d(2, 3, 6, 1).forward(A2), ValueError, "covers 6 cells"),
        (lambda: course.Conv2d(2, 3, 2, 1).forward(A2 * 1j), TypeError, "A has dtype complex128"),
        (lambda: course.Conv2d(2, 3, 2, 1).forward(A2[..., :0]), ValueError, "A must be .* with no spatial size of 0"),
        (lambda: course.Conv2d(2, 3, 2, 1, 10**18).forward(A2), ValueError, "more than can be addressed"),
        (lambda: course.Conv2d(2, 3, 2, 1).backward(A2), ValueError, r"Conv2d.backward\(\) .* call forward\(\) first"),
        (lambda: after_forward(course.Conv2d(2, 3, 2, 2)).backward(A2), ValueError, r"dLdZ has shape .*\(1, 3, 2, 2\)"),
        (lambda: with_weights(np.ones((3, 2, 2)), np.ones(3)).forward(A2), ValueError, "W must be"),
        (lambda: with_weights(np.ones((3, 2, 2, 2)), np.ones(2)).forward(A2), ValueError, r"b must be \(3,\)"),
        (lambda: with_weights("W", np.ones(2)).forward(A2), TypeError, "W is a str: "),
        (lambda: course.Conv2d_stride1(2, 3, 2).backward(A2), ValueError, "Conv2d_stride1.backward"),
        (lambda: after_forward(course.Conv2d_stride1(2, 3, 2)).backward(A2), ValueError, "dLdZ has shape"),
        (lambda: course.ConvTranspose1d(2, 3, 2, 0), ValueError, "upsampling_factor must be an int >= 1"),
        (lambda: course.ConvTranspose1d(2, 3, 10, 2).forward(A1), ValueError, "covers 10 cells"),
        (lambda: course.ConvTranspose1d(2, 3, 2, 2).backward(A1), ValueError, "ConvTranspose1d.backward"),
        (lambda: after_forward(course.ConvTranspose1d(2, 3, 2, 2), A1).backward(A1), ValueError, "dLdZ has shape"),
        (lambda: course.ConvTranspose1d(2, 3, 2, 10**18).forward(A1), ValueError, "more elements than can be addressed"),
        (lambda: course.Upsample1d(1.5), TypeError, "upsampling_factor must be an int"),
        (lambda: course.Upsample1d(2).forward(A2), ValueError, "A must be"),
        (lambda: course.Upsample1d(10**18).forward(A1), ValueError, "more than can be addressed"),
        (lambda: course.Upsample1d(2).backward(A1), ValueError, "Upsample1d.backward"),
        (lambda: after_forward(course.Upsample1d(2), A1).backward(A1), ValueError, "dLdZ has shape"),
        (lambda: course.Downsample2d(0), ValueError, "downsampling_factor must be an int >= 1"),
        (lambda: course.Downsample2d(2).backward(A2), ValueError, "Downsample2d.backward"),
        (lambda: after_forward(course.Downsample2d(2)).backward(A2), ValueError, "dLdZ has shape"),
        (lambda: course.MaxPool2d(0, 1), ValueError, "kernel must be an int >= 1"),
        (lambda: course.MaxPool2d(2, None), TypeError, "stride must be an int"),
        (lambda: course.MeanPool2d(6, 1).forward(A2), ValueError, "covers 6 cells"),
        (lambda: course.MeanPool2d(2, 1).forward(A1), ValueError, "A must be"),
        (lambda: course.MeanPool2d(2, 1).backward(A2), ValueError, "MeanPool2d.backward"),
        (lambda: after_forward(course.MaxPool2d(2, 1)).backward(A2), ValueError, "dLdZ has shape"),
        (lambda: after_forward(course.MaxPool2d_stride1(2)).backward(A2), ValueError, "dLdZ has shape"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
