"""The pack of "Deep Learning from Scratch" against the book's definitions, written as loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fastconv.compat import dlfs
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error

# x, W, stride, pad
LAYERS = [
    ((2, 3, 5, 5), (4, 3, 3, 3), 1, 1),
    ((3, 2, 7, 6), (2, 2, 3, 2), 2, 1),  # not square, does not tile
    ((2, 1, 9, 8), (3, 1, 4, 4), 3, 0),
    ((2, 3, 4, 4), (5, 3, 1, 1), 1, 0),
    ((1, 2, 3, 4), (2, 2, 2, 3), 4, 3),  # padding past the filter
    ((1, 2, 4, 4), (1, 2, 3, 3), 10**30, 1),
    ((0, 2, 5, 5), (2, 2, 3, 3), 1, 1),
]
layers = pytest.mark.parametrize(("x_shape", "W_shape", "stride", "pad"), LAYERS)


def outputs(size, f, stride, pad):
    return (size + 2 * pad - f) // stride + 1


def walk(x_shape, fh, fw, stride, pad):
    """Every entry of the lowered matrix: its row, its column, and the cell of the image, or None in the padding."""
    N, C, H, W = x_shape
    OH, OW = outputs(H, fh, stride, pad), outputs(W, fw, stride, pad)
    for row, (n, oh, ow) in enumerate(np.ndindex(N, OH, OW)):
        for column, (c, kh, kw) in enumerate(np.ndindex(C, fh, fw)):
            h, w = oh * stride + kh - pad, ow * stride + kw - pad
            yield row, column, (n, c, h, w) if 0 <= h < H and 0 <= w < W else None


def loop_im2col(x, fh, fw, stride, pad):
    N, C, H, W = x.shape
    col = np.zeros((N * outputs(H, fh, stride, pad) * outputs(W, fw, stride, pad), C * fh * fw))
    for row, column, cell in walk(x.shape, fh, fw, stride, pad):
        if cell:
            col[row, column] = x[cell]
    return col


def loop_col2im(col, x_shape, fh, fw, stride, pad):
    x = np.zeros(x_shape)
    for row, column, cell in walk(x_shape, fh, fw, stride, pad):
        if cell:
            x[cell] += col[row, column]
    return x


def loop_conv(x, W, b, stride, pad):
    """The layer as one product of the lowered matrix, and its gradients."""
    N, FN = len(x), len(W)
    OH, OW = (outputs(size, f, stride, pad) for size, f in zip(x.shape[2:], W.shape[2:], strict=True))
    col, flat = loop_im2col(x, *W.shape[2:], stride, pad), W.reshape(FN, -1)

    def gradients(dout):
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, FN)
        dx = loop_col2im(rows @ flat, x.shape, *W.shape[2:], stride, pad)
        return dx, (rows.T @ col).reshape(W.shape), rows.sum(axis=0)

    return (col @ flat.T + b).reshape(N, OH, OW, FN).transpose(0, 3, 1, 2), gradients


def loop_pool(x, ph, pw, stride, pad):
    """Zeros of the padding count like other cells; the first maximum gets the gradient."""
    padded = np.pad(np.asarray(x, float), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    N, C, H, W = x.shape
    out = np.zeros((N, C, outputs(H, ph, stride, pad), outputs(W, pw, stride, pad)))
    winners = {}
    for place in np.ndindex(out.shape):
        n, c, oh, ow = place
        best = None
        for kh, kw in np.ndindex(ph, pw):
            cell = n, c, oh * stride + kh, ow * stride + kw
            if best is None or padded[cell] > padded[best]:
                best, inside = cell, kh * pw + kw
        out[place], winners[place] = padded[best], (best, inside)

    def gradient(dout):
        dx = np.zeros(padded.shape)
        for place, (best, _) in winners.items():
            dx[best] += dout[place]
        return dx[:, :, pad : pad + H, pad : pad + W]

    order = sorted(winners, key=lambda place: (place[0], place[2], place[3], place[1]))
    return out, gradient, [winners[place][1] for place in order]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@layers
def test_lowering(x_shape, W_shape, stride, pad, dtype, rng):
    x = rng.standard_normal(x_shape).astype(dtype)
    filter_h, filter_w = W_shape[2:]
    expected = loop_im2col(x, filter_h, filter_w, stride, pad)
    col = dlfs.im2col(x, filter_h, filter_w, stride=stride, pad=pad)
    assert col.dtype == dtype and col.flags.c_contiguous and np.array_equal(col, expected)
    values = rng.standard_normal(col.shape).astype(dtype)
    image = dlfs.col2im(values, x_shape, filter_h, filter_w, stride=stride, pad=pad)
    assert image.dtype == dtype and image.flags.c_contiguous
    np.testing.assert_allclose(image, loop_col2im(values, x_shape, filter_h, filter_w, stride, pad), atol=1e-5)


@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 8), st.integers(1, 8),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 4),
)  # fmt: skip
def test_lowering_of_any_geometry(N, C, H, W, filter_h, filter_w, stride, pad):
    x = np.arange(1.0, N * C * H * W + 1).reshape(N, C, H, W)
    if min(H + 2 * pad - filter_h, W + 2 * pad - filter_w) < 0:
        with pytest.raises(ValueError, match="kernel covers"):
            dlfs.im2col(x, filter_h, filter_w, stride, pad)
        return
    col = dlfs.im2col(x, filter_h, filter_w, stride, pad)
    assert np.array_equal(col, loop_im2col(x, filter_h, filter_w, stride, pad))
    image = dlfs.col2im(col, x.shape, filter_h, filter_w, stride, pad)
    assert np.array_equal(image, loop_col2im(col, x.shape, filter_h, filter_w, stride, pad))


def test_shapes_in_the_book():
    """The example of chapter 7: 7 x 7 images with 3 channels and 5 x 5 filters give 9 patches of 75 numbers."""
    rng = np.random.default_rng(0)
    assert dlfs.im2col(rng.random((1, 3, 7, 7)), 5, 5, stride=1, pad=0).shape == (9, 75)
    assert dlfs.im2col(rng.random((10, 3, 7, 7)), 5, 5, stride=1, pad=0).shape == (90, 75)
    assert dlfs.Pooling(2, 2).stride == 2 and dlfs.Pooling(2, 2).pad == 0


def test_pooling_in_the_book():
    """The book's figure: 2 x 2 windows at stride 2 on [[1, 2, 1, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 4, 0, 1]]."""
    x = np.array([[1, 2, 1, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 4, 0, 1]])[None, None]
    assert np.array_equal(dlfs.Pooling(2, 2, 2).forward(x)[0, 0], [[2, 3], [4, 2]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@layers
def test_convolution(x_shape, W_shape, stride, pad, dtype, rng):
    x, W, b = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, W_shape, W_shape[:1]))
    layer = dlfs.Convolution(W, b, stride, pad)
    assert layer.W is W and layer.b is b and layer.dW is None and layer.db is None and layer.col is None
    tolerance = 1e-4 if dtype is np.float32 else 1e-11
    expected, gradients = loop_conv(x, W, b, stride, pad)
    out = layer.forward(x)
    assert out.dtype == dtype and out.flags.c_contiguous
    np.testing.assert_allclose(out, expected, atol=tolerance)
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx = layer.backward(dout)
    for gradient, wanted in zip((dx, layer.dW, layer.db), gradients(dout), strict=True):
        assert gradient.dtype == dtype and gradient.shape == wanted.shape
        np.testing.assert_allclose(gradient, wanted, atol=tolerance)
    assert layer.x is x
    assert np.array_equal(layer.col, loop_im2col(x, *W_shape[2:], stride, pad))
    assert np.array_equal(layer.col_W, W.reshape(len(W), -1).T)


def test_convolution_central_differences(rng):
    x, W, b = rng.standard_normal((2, 2, 6, 5)), rng.standard_normal((3, 2, 3, 2)), rng.standard_normal(3)
    layer = dlfs.Convolution(W, b, stride=2, pad=1)
    dout = rng.standard_normal(layer.forward(x).shape)
    dx = layer.backward(dout)
    for array, gradient in ((x, dx), (W, layer.dW), (b, layer.db)):
        numeric = eval_numerical_gradient_array(lambda _: dlfs.Convolution(W, b, 2, 1).forward(x), array, dout)
        assert rel_error(numeric, gradient) < 1e-7


def test_convolution_orders_and_mixed_input(rng):
    x, W, b = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(4)
    layer, other = dlfs.Convolution(W, b, 2, 1), dlfs.Convolution(np.asfortranarray(W), b.astype(">f8"), 2, 1)
    out = layer.forward(x)
    assert np.array_equal(other.forward(x[:, ::-1][:, ::-1].transpose(3, 2, 1, 0).copy().T), out)
    dout = rng.standard_normal(out.shape)
    np.testing.assert_allclose(other.backward(np.asfortranarray(dout)), layer.backward(dout), atol=1e-12)
    np.testing.assert_allclose(other.dW, layer.dW, atol=1e-12)

    ints, singles = (10 * x).astype(int), W.astype(np.float32)
    mixed = dlfs.Convolution(singles, np.arange(4), 2, 1)
    expected, gradients = loop_conv(ints.astype(float), singles.astype(float), np.arange(4.0), 2, 1)
    out = mixed.forward(ints)
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, expected, atol=1e-11)
    dx = mixed.backward(np.ones(out.shape, int))
    for gradient, wanted in zip((dx, mixed.dW, mixed.db), gradients(np.ones(out.shape)), strict=True):
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, wanted, atol=1e-11)


@pytest.mark.parametrize("b", [0, 2.5, True, np.float32(1.5), np.array(2, np.float32), np.array([0.5], np.float32)])
def test_a_scalar_bias(b, rng):
    x = rng.standard_normal((2, 1, 4, 4)).astype(np.float32)
    W = rng.standard_normal((3, 1, 2, 2)).astype(np.float32)
    layer = dlfs.Convolution(W, b)
    out = layer.forward(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, loop_conv(x, W, float(np.ravel(b)[0]), 1, 0)[0], atol=1e-5)
    layer.backward(np.ones_like(out))
    assert layer.dW.dtype == np.float32
    assert layer.db.dtype == np.float32 and np.array_equal(layer.db, [18, 18, 18])


def test_weights_reassigned_and_changed_in_place(rng):
    x, W, b = rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((2, 2, 3, 3)), np.zeros(2)
    layer = dlfs.Convolution(W, b, pad=1)
    first = layer.forward(x)
    W *= 2
    b += 1
    np.testing.assert_allclose(layer.forward(x), 2 * first + 1)
    layer.W, layer.b = W[:1, :, :2], 0
    out = layer.forward(x)
    np.testing.assert_allclose(out, loop_conv(x, W[:1, :, :2], 0, 1, 1)[0], atol=1e-12)
    assert layer.backward(out).shape == x.shape and layer.dW.shape == (1, 2, 2, 3)
    layer.stride, layer.pad = 2, 0
    np.testing.assert_allclose(layer.forward(x), loop_conv(x, W[:1, :, :2], 0, 2, 0)[0], atol=1e-12)


def test_input_changed_between_forward_and_backward(rng):
    """The book's layers keep columns and places, which are copies, so later changes of x have no effect."""
    x, W = rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((2, 2, 3, 3))
    conv, pool = dlfs.Convolution(W, 0), dlfs.Pooling(2, 2)
    out, pooled = conv.forward(x), pool.forward(x)
    _, gradients = loop_conv(x.copy(), W, 0, 1, 0)
    _, pool_gradient, _ = loop_pool(x.copy(), 2, 2, 2, 0)
    x[...] = 0
    conv.backward(out)
    np.testing.assert_allclose(conv.dW, gradients(out)[1], atol=1e-12)
    np.testing.assert_allclose(pool.backward(pooled), pool_gradient(pooled))


def test_a_gradient_step_lowers_the_loss(rng):
    """The book's SGD changes the weights in place, and the layer uses the changed array."""
    params = {"W1": rng.standard_normal((2, 1, 3, 3)), "b1": np.zeros(2)}
    layer = dlfs.Convolution(params["W1"], params["b1"], pad=1)
    x, target = rng.standard_normal((4, 1, 6, 6)), rng.standard_normal((4, 2, 6, 6))
    losses = []
    for _ in range(5):
        out = layer.forward(x)
        losses.append(((out - target) ** 2).sum())
        layer.backward(2 * (out - target))
        for name, gradient in (("W1", layer.dW), ("b1", layer.db)):
            params[name] -= 1e-3 * gradient
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


POOLS = [
    ((2, 3, 8, 8), 2, 2, 2, 0),
    ((2, 2, 7, 8), 3, 2, 2, 0),
    ((2, 2, 6, 6), 3, 3, 1, 1),
    ((1, 2, 7, 7), 2, 2, 3, 1),
    ((1, 1, 2, 2), 2, 1, 2, 3),  # These windows lie in the padding.
    ((1, 2, 4, 4), 2, 3, 10**30, 1),
    ((0, 2, 4, 4), 2, 2, 2, 0),
]


@pytest.mark.parametrize("values", ["distinct", "tied", "negative"])
@pytest.mark.parametrize(("shape", "pool_h", "pool_w", "stride", "pad"), POOLS)
def test_pooling(shape, pool_h, pool_w, stride, pad, values, rng):
    size = int(np.prod(shape))
    numbers = rng.integers(-1, 2, size) if values == "tied" else rng.permutation(size) - size // 3
    x = (numbers - (size if values == "negative" else 0)).reshape(shape) * 0.5
    expected, gradient, places = loop_pool(x, pool_h, pool_w, stride, pad)
    layer = dlfs.Pooling(pool_h, pool_w, stride, pad)
    assert layer.arg_max is None
    out = layer.forward(x)
    assert out.flags.c_contiguous and np.array_equal(out, expected)
    assert layer.arg_max.shape == (out.size,) and np.array_equal(layer.arg_max, places)
    dout = rng.standard_normal(out.shape)
    dx = layer.backward(dout)
    assert dx.flags.c_contiguous
    np.testing.assert_allclose(dx, gradient(dout), atol=1e-12)

    assert layer.forward(x.astype(np.float32)).dtype == np.float32 == layer.backward(dout).dtype
    assert np.array_equal(layer.forward(np.asfortranarray((2 * x).astype(int))), 2 * expected)
    np.testing.assert_allclose(layer.backward(dout), gradient(dout), atol=1e-12)


def test_star_import_brings_the_books_names():
    names = {}
    exec("from fastconv.compat.dlfs import *", names)
    assert set(names) == {"im2col", "col2im", "Convolution", "Pooling", "__builtins__"}


X, FILTERS = np.ones((1, 2, 4, 4)), np.ones((3, 2, 2, 2))


def conv(W=FILTERS, b=0, stride=1, pad=0, x=X):
    return dlfs.Convolution(W, b, stride, pad).forward(x)


def after_forward(layer):
    layer.forward(X)
    return layer


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dlfs.im2col(X[0], 2, 2), ValueError, r"input_data must be \(N, C, H, W\)"),
        (lambda: dlfs.im2col(X * 1j, 2, 2), TypeError, "input_data has dtype complex128"),
        (lambda: dlfs.im2col(X, 2.0, 2), TypeError, "filter_h must be an int"),
        (lambda: dlfs.im2col(X, 2, 0), ValueError, "filter_w must be an int >= 1"),
        (lambda: dlfs.im2col(X, 2, 2, 0), ValueError, "stride must be an int >= 1"),
        (lambda: dlfs.im2col(X, 2, 2, 1, -1), ValueError, "pad must be an int >= 0"),
        (lambda: dlfs.im2col(X, 5, 2), ValueError, "covers 5 cells"),
        (lambda: dlfs.col2im(np.ones((9, 8)), (1, 2, 4, 4), 3, 3), ValueError, r"col must have shape \(4, 18\)"),
        (lambda: dlfs.col2im(np.ones((9, 8)), (1, 2, 4), 2, 2), ValueError, r"input_shape must be \(N, C, H, W\)"),
        (lambda: dlfs.col2im(np.ones((9, 8)), (1, 0, 4, 4), 2, 2), ValueError, "at least one channel"),
        (lambda: dlfs.col2im(np.ones((9, 8)), X, 2, 2), TypeError, "pass input.shape"),
        (lambda: dlfs.col2im([["a"]], (1, 2, 4, 4), 2, 2), TypeError, "col has dtype"),
        (lambda: dlfs.Convolution(FILTERS, 0, stride=0), ValueError, "stride must be an int >= 1"),
        (lambda: dlfs.Convolution(FILTERS, 0, pad=0.5), TypeError, "pad must be an int"),
        (lambda: conv(x=X[0]), ValueError, r"x must be \(N, C, H, W\)"),
        (lambda: conv(x=X[:, :1]), ValueError, "x .* has 1 channel, but W .* takes 2"),
        (lambda: conv(W=FILTERS[0]), ValueError, r"W must be \(FN, C, FH, FW\)"),
        (lambda: conv(W=FILTERS[:0]), ValueError, "at least one filter"),
        (lambda: conv(b=np.zeros(2)), ValueError, r"b must be \(3,\) or a number"),
        (lambda: conv(b=np.zeros((0, 3))), ValueError, "b has shape"),
        (lambda: conv(b="a"), TypeError, "b is a str: "),
        (lambda: conv(x=X[:, :, :1]), ValueError, "covers 2 cells"),
        (lambda: dlfs.Convolution(FILTERS, 0).backward(X), ValueError, r"Convolution.backward\(\) .* call forward\(\)"),
        (lambda: after_forward(dlfs.Convolution(FILTERS, 0)).backward(X), ValueError, "dout has shape"),
        (lambda: dlfs.Pooling(0, 2), ValueError, "pool_h must be an int >= 1"),
        (lambda: dlfs.Pooling(2, "2"), TypeError, "pool_w must be an int"),
        (lambda: dlfs.Pooling(2, 2, 0), ValueError, "stride must be an int >= 1"),
        (lambda: dlfs.Pooling(2, 2, 1, None), TypeError, "pad must be an int"),
        (lambda: dlfs.Pooling(2, 2).forward(X[0]), ValueError, "x must be"),
        (lambda: dlfs.Pooling(5, 2).forward(X), ValueError, "covers 5 cells"),
        (lambda: dlfs.Pooling(2, 2).backward(X), ValueError, r"call forward\(\) first"),
        (lambda: after_forward(dlfs.Pooling(2, 2)).backward(X), ValueError, "dout has shape"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
