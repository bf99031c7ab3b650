"""The 11-785 pack against the layers of the homework, whose parts are written as loops here, and against PyTorch."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fastconv.compat import cmu11785 as course
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error


def loop_conv(A, W, b):
    """A convolution of stride 1, one output at a time, and its gradients, with any number of spatial axes."""
    kernel = W.shape[2:]
    spatial = tuple(n - k + 1 for n, k in zip(A.shape[2:], kernel, strict=True))
    Z = np.zeros((len(A), len(W), *spatial))

    def window(place):
        return tuple(slice(i, i + k) for i, k in zip(place, kernel, strict=True))

    for n, o, *place in np.ndindex(Z.shape):
        Z[(n, o, *place)] = (A[(n, slice(None), *window(place))] * W[o]).sum() + b[o]

    def gradients(dLdZ):
        dA, dW, db = np.zeros(A.shape), np.zeros(W.shape), np.zeros(b.shape)
        for n, o, *place in np.ndindex(Z.shape):
            g, cells = dLdZ[(n, o, *place)], (n, slice(None), *window(place))
            dA[cells] += g * W[o]
            dW[o] += g * A[cells]
            db[o] += g
        return dA, dW, db

    return Z, gradients


def loop_down(A, factors):
    """Every factor-th cell; the gradient has the length of A."""
    spatial = tuple(len(range(0, n, k)) for n, k in zip(A.shape[2:], factors, strict=True))
    Z = np.zeros((*A.shape[:2], *spatial))

    def cell(place):
        return (*place[:2], *(i * k for i, k in zip(place[2:], factors, strict=True)))

    for place in np.ndindex(Z.shape):
        Z[place] = A[cell(place)]

    def gradient(dLdZ):
        dA = np.zeros(A.shape)
        for place in np.ndindex(Z.shape):
            dA[cell(place)] = dLdZ[place]
        return dA

    return Z, gradient


def loop_up(A, factors):
    spatial = tuple(k * (n - 1) + 1 for n, k in zip(A.shape[2:], factors, strict=True))
    Z = np.zeros((*A.shape[:2], *spatial))
    # Downsampling is the gradient of upsampling, and the reverse.
    return loop_down(Z, factors)[1](A), lambda dLdZ: loop_down(dLdZ, factors)[0]


def loop_pool(A, kernel, mode):
    spatial = tuple(n - k + 1 for n, k in zip(A.shape[2:], kernel, strict=True))
    Z = np.zeros((*A.shape[:2], *spatial))
    taps = list(np.ndindex(*kernel))
    winners = {}
    for n, c, h, w in np.ndindex(Z.shape):
        cells = [(n, c, h + kh, w + kw) for kh, kw in taps]
        values = [A[cell] for cell in cells]
        Z[n, c, h, w] = max(values) if mode == "max" else sum(values) / len(values)
        winners[n, c, h, w] = [cells[values.index(max(values))]] if mode == "max" else cells

    def gradient(dLdZ):
        dA = np.zeros(A.shape)
        for place, cells in winners.items():
            for cell in cells:
                dA[cell] += dLdZ[place] / len(cells)
        return dA

    return Z, gradient


def padded(A, pads):
    return np.pad(A, ((0, 0), (0, 0), *((p, p) for p in pads)))


def pair(value, rank):
    return value if isinstance(value, tuple) else (value,) * rank


def composed_conv(A, W, b, stride, padding):
    """The composition of the homework: pad, convolve with stride 1, keep every stride-th output."""
    rank = A.ndim - 2
    pads = pair(padding, rank)
    Z, conv_gradients = loop_conv(padded(A, pads), W, b)
    Z, down_gradient = loop_down(Z, pair(stride, rank))

    def gradients(dLdZ):
        dA, dW, db = conv_gradients(down_gradient(dLdZ))
        inner = tuple(slice(p, p + n) for p, n in zip(pads, A.shape[2:], strict=True))
        return dA[(slice(None), slice(None), *inner)], dW, db

    return Z, gradients


def composed_transposed(A, W, b, factor):
    rank = A.ndim - 2
    up, up_gradient = loop_up(A, pair(factor, rank))
    Z, conv_gradients = loop_conv(up, W, b)

    def gradients(dLdZ):
        dA, dW, db = conv_gradients(dLdZ)
        return up_gradient(dA), dW, db

    return Z, gradients


def make(name, rng, dtype, *arguments):
    """A layer with normally distributed weights of the dtype, and its weights."""

    def init(*shape):
        return rng.standard_normal(shape).astype(dtype)

    layer = getattr(course, name)(*arguments, weight_init_fn=init, bias_init_fn=init)
    return layer, layer.W, layer.b


def inner(layer):
    return getattr(layer, "conv1d_stride1" if "1d" in type(layer).__name__ else "conv2d_stride1")


def check_layer(layer, A, expected, gradients, rng, dtype):
    tolerance = 1e-3 if dtype is np.float32 else 1e-10
    of = inner(layer)
    assert not of.dLdW.any() and not of.dLdb.any() and of.dLdW.shape == of.W.shape and of.dLdb.shape == of.b.shape
    assert of.dLdW.dtype == of.dLdb.dtype == dtype
    W, b = of.W, of.b
    for _ in range(2):  # The second call overwrites the gradients, and does not add to them.
        Z = layer.forward(A)
        assert Z.dtype == dtype and Z.flags.c_contiguous
        np.testing.assert_allclose(Z, expected, atol=tolerance)
        dLdZ = rng.standard_normal(Z.shape).astype(dtype)
        dLdA = layer.backward(dLdZ)
        for gradient, wanted in zip((dLdA, of.dLdW, of.dLdb), gradients(dLdZ), strict=True):
            assert gradient.dtype == dtype and gradient.flags.c_contiguous
            np.testing.assert_allclose(gradient, wanted, atol=tolerance)
    assert layer.W is of.W is W and layer.b is of.b is b and layer.dLdW is of.dLdW and layer.dLdb is of.dLdb


# A, out_channels, kernel_size, stride, padding
CONVS = [
    ((2, 3, 9), 4, 3, 1, 0),
    ((2, 3, 10), 2, 4, 3, 0),  # This stride does not tile the image.
    ((1, 2, 8), 3, 2, 2, 1),
    ((2, 1, 5), 2, 1, 4, 3),  # The padding exceeds the kernel.
    ((0, 2, 6), 2, 3, 2, 1),
    ((2, 3, 7, 7), 4, 3, 1, 0),
    ((2, 2, 8, 7), 3, 3, 2, 0),
    ((1, 2, 6, 9), 2, 2, 3, 1),
    ((1, 3, 5, 5), 2, 5, 2, 2),
    ((1, 2, 7, 6), 2, (3, 2), (2, 1), (0, 1)),  # not square
    ((0, 2, 6, 6), 2, 3, 2, 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "out_channels", "kernel_size", "stride", "padding"), CONVS)
def test_conv(shape, out_channels, kernel_size, stride, padding, dtype, rng):
    rank = len(shape) - 2
    layer, W, b = make(f"Conv{rank}d", rng, dtype, shape[1], out_channels, kernel_size, stride, padding)
    assert W.shape == (out_channels, shape[1], *pair(kernel_size, rank))
    A = rng.standard_normal(shape).astype(dtype)
    check_layer(layer, A, *composed_conv(A, W, b, stride, padding), rng, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "out_channels", "kernel_size"), [case[:3] for case in CONVS])
def test_conv_stride1(shape, out_channels, kernel_size, dtype, rng):
    rank = len(shape) - 2
    layer = make(f"Conv{rank}d_stride1", rng, dtype, shape[1], out_channels, kernel_size)[0]
    A = rng.standard_normal(shape).astype(dtype)
    expected, gradients = loop_conv(A, layer.W, layer.b)
    np.testing.assert_allclose(layer.forward(A), expected, atol=1e-3 if dtype is np.float32 else 1e-10)
    assert layer.A is A
    dLdZ = rng.standard_normal(expected.shape).astype(dtype)
    for gradient, wanted in zip((layer.backward(dLdZ), layer.dLdW, layer.dLdb), gradients(dLdZ), strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, wanted, atol=1e-3 if dtype is np.float32 else 1e-10)


@given(
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4),
    st.integers(1, 5), st.integers(0, 3),
)  # fmt: skip
def test_conv_of_any_geometry(rank, channels, out_channels, size, width, kernel_size, stride, padding):
    shape = (2, channels, size, width)[: rank + 2]
    rng = np.random.default_rng(size)
    layer, W, b = make(f"Conv{rank}d", rng, float, channels, out_channels, kernel_size, stride, padding)
    A = rng.standard_normal(shape)
    if min(shape[2:]) + 2 * padding < kernel_size:
        with pytest.raises(ValueError, match="covers"):
            layer.forward(A)
        return
    check_layer(layer, A, *composed_conv(A, W, b, stride, padding), rng, np.float64)


# A, out_channels, kernel_size, upsampling_factor
TRANSPOSED = [
    ((2, 3, 5), 4, 3, 2),
    ((2, 2, 4), 3, 4, 3),
    ((1, 2, 6), 2, 1, 4),  # Most of these outputs are the bias alone.
    ((2, 1, 5), 2, 5, 1),
    ((1, 2, 1), 2, 1, 10**30),
    ((0, 2, 4), 3, 3, 2),
    ((2, 3, 4, 5), 2, 3, 2),
    ((1, 2, 3, 3), 3, 2, 3),
    ((1, 2, 5, 4), 3, (2, 4), (1, 2)),
    ((0, 2, 4, 4), 3, 3, 2),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "out_channels", "kernel_size", "factor"), TRANSPOSED)
def test_conv_transpose(shape, out_channels, kernel_size, factor, dtype, rng):
    layer, W, b = make(f"ConvTranspose{len(shape) - 2}d", rng, dtype, shape[1], out_channels, kernel_size, factor)
    A = rng.standard_normal(shape).astype(dtype)
    check_layer(layer, A, *composed_transposed(A, W, b, factor), rng, dtype)


@given(
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5),
    st.integers(1, 4),
)  # fmt: skip
def test_conv_transpose_of_any_geometry(rank, channels, out_channels, size, width, kernel_size, factor):
    shape = (2, channels, size, width)[: rank + 2]
    rng = np.random.default_rng(size)
    layer, W, b = make(f"ConvTranspose{rank}d", rng, float, channels, out_channels, kernel_size, factor)
    A = rng.standard_normal(shape)
    if factor * (min(shape[2:]) - 1) + 1 < kernel_size:
        with pytest.raises(ValueError, match="covers"):
            layer.forward(A)
        return
    check_layer(layer, A, *composed_transposed(A, W, b, factor), rng, np.float64)


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"])
def test_central_differences(name, rng):
    layer, W, b = make(name, rng, float, 2, 3, 3, 2)
    A = rng.standard_normal((2, 2, 6, 5)[: W.ndim])
    dLdZ = rng.standard_normal(layer.forward(A).shape)
    dLdA = layer.backward(dLdZ)
    for array, gradient in ((A, dLdA), (W, layer.dLdW), (b, layer.dLdb)):
        numeric = eval_numerical_gradient_array(lambda _: layer.forward(A), array, dLdZ)
        assert rel_error(numeric, gradient) < 1e-7


@pytest.mark.parametrize("rank", [1, 2])
def test_against_pytorch(rank, torch, rng):
    A = rng.standard_normal((2, 3, 9, 8)[: rank + 2])
    layer, W, b = make(f"Conv{rank}d", rng, float, 3, 4, 3, 2, 1)
    tensors = [torch.tensor(a, requires_grad=True) for a in (A, W, b)]
    Z = getattr(torch.nn.functional, f"conv{rank}d")(*tensors, stride=2, padding=1)
    np.testing.assert_allclose(layer.forward(A), Z.detach().numpy(), atol=1e-12)
    dLdZ = rng.standard_normal(Z.shape)
    Z.backward(torch.tensor(dLdZ))
    for gradient, tensor in zip((layer.backward(dLdZ), layer.dLdW, layer.dLdb), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-11)

    # PyTorch's transposed convolution scatters: its kernel is flipped, its channel axes are swapped, and it does not
    # crop.
    layer, W, b = make(f"ConvTranspose{rank}d", rng, float, 3, 4, 3, 2)
    turned = np.flip(W, tuple(range(2, 2 + rank))).swapaxes(0, 1).copy()
    tensors = [torch.tensor(a) for a in (A, turned, b)]
    Z = getattr(torch.nn.functional, f"conv_transpose{rank}d")(*tensors, stride=2, padding=2)
    np.testing.assert_allclose(layer.forward(A), Z.numpy(), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1, 1), (0, 2, 4), (2, 3, 5, 6), (1, 2, 1, 4)])
@pytest.mark.parametrize("factor", [1, 2, 3, 5, 10])
def test_resampling(shape, factor, rng):
    rank = len(shape) - 2
    A = rng.standard_normal(shape)
    for name, loop in (("Upsample", loop_up), ("Downsample", loop_down)):
        layer = getattr(course, f"{name}{rank}d")(factor)
        expected, gradient = loop(A, (factor,) * rank)
        Z = layer.forward(A)
        assert np.array_equal(Z, expected) and Z.flags.c_contiguous and not np.shares_memory(Z, A)
        dLdZ = rng.standard_normal(Z.shape)
        dLdA = layer.backward(dLdZ)
        assert np.array_equal(dLdA, gradient(dLdZ)) and not np.shares_memory(dLdA, dLdZ)
        assert layer.forward(np.asfortranarray(A.astype(np.float32))).dtype == np.float32
        assert layer.backward(dLdZ.astype(np.float32)).dtype == np.float32
        ints = layer.forward((10 * A).astype(int))
        assert ints.dtype == np.float64 and np.array_equal(ints, loop((10 * A).astype(int), (factor,) * rank)[0])


def test_resampling_by_hand():
    up, down = course.Upsample1d(3), course.Downsample1d(2)
    assert np.array_equal(up.forward([[[1, 2]]]), [[[1, 0, 0, 2]]])
    assert up.upsampling_factor == 3 and down.downsampling_factor == 2
    # Four and five samples both have two (or three) left; backward remembers how many there were.
    for length in (4, 5):
        Z = down.forward(np.ones((1, 1, length)))
        assert down.backward(Z).shape == (1, 1, length)
    assert np.array_equal(course.Upsample2d((1, 2)).forward(np.ones((1, 1, 2, 2)))[0, 0], [[1, 0, 1], [1, 0, 1]])


POOLS = [((2, 3, 6, 6), 2, 2), ((2, 2, 7, 8), 3, 2), ((1, 2, 5, 6), 2, 3), ((1, 1, 4, 5), (3, 2), (1, 2)),
         ((1, 2, 3, 3), 3, 10**30), ((0, 2, 4, 4), 2, 2)]  # fmt: skip


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("values", ["distinct", "tied"])
@pytest.mark.parametrize(("shape", "kernel", "stride"), POOLS)
def test_pool(shape, kernel, stride, values, mode, rng):
    size = int(np.prod(shape))
    A = (rng.permutation(size) if values == "distinct" else rng.integers(0, 3, size)).reshape(shape) * 0.5
    name = f"{mode.title()}Pool2d"
    unit, unit_gradient = loop_pool(A, pair(kernel, 2), mode)
    expected, down_gradient = loop_down(unit, pair(stride, 2))
    layer, slow = getattr(course, name)(kernel, stride), getattr(course, f"{name}_stride1")(kernel)
    for dtype in (np.float64, np.float32, int):
        B = np.asfortranarray((2 * A).astype(dtype))
        of = np.float32 if dtype is np.float32 else np.float64
        Z, long = layer.forward(B), slow.forward(B)
        assert Z.dtype == of == long.dtype
        np.testing.assert_allclose(Z, 2 * expected, rtol=1e-6)
        np.testing.assert_allclose(long, 2 * unit, rtol=1e-6)
        dLdZ, dLong = rng.standard_normal(Z.shape), rng.standard_normal(long.shape)
        dLdA = layer.backward(dLdZ)
        assert dLdA.dtype == of
        np.testing.assert_allclose(dLdA, unit_gradient(down_gradient(dLdZ)), atol=1e-5 if of == np.float32 else 1e-12)
        np.testing.assert_allclose(slow.backward(dLong), unit_gradient(dLong), atol=1e-5 if of == np.float32 else 1e-12)


def test_pool_is_the_composition_of_its_parts(rng):
    A = rng.standard_normal((2, 2, 7, 6))
    for layer, unit in ((course.MaxPool2d(3, 2), "maxpool2d_stride1"), (course.MeanPool2d(3, 2), "meanpool2d_stride1")):
        assert layer.kernel == 3 and layer.stride == 2
        Z = layer.forward(A)
        # It has recorded the 5 x 4 outputs at stride 1.
        assert layer.downsample2d.backward(Z).shape == (2, 2, 5, 4)
        np.testing.assert_allclose(layer.downsample2d.forward(getattr(layer, unit).forward(A)), Z, atol=1e-12)
        by_parts = getattr(layer, unit).backward(layer.downsample2d.backward(Z))
        np.testing.assert_allclose(by_parts, layer.backward(Z), atol=1e-12)


def test_conv_is_the_composition_of_its_parts(rng):
    """After forward, the inner layers hold the same values as in the course's composition."""
    layer = make("Conv2d", rng, float, 2, 3, 3, 2, 1)[0]
    A = rng.standard_normal((2, 2, 6, 7))
    Z = layer.forward(A)
    assert np.array_equal(layer.conv2d_stride1.A, padded(A, (1, 1)))
    assert layer.stride == 2 and layer.pad == 1 and layer.downsample2d.downsampling_factor == 2
    dLdA = layer.backward(Z)
    dLdW = layer.dLdW
    by_parts = layer.conv2d_stride1.backward(layer.downsample2d.backward(Z))[:, :, 1:-1, 1:-1]
    np.testing.assert_allclose(by_parts, dLdA, atol=1e-12)
    assert layer.dLdW is not dLdW
    np.testing.assert_allclose(layer.dLdW, dLdW, atol=1e-12)
    unit = layer.conv2d_stride1.forward(padded(A, (1, 1)))
    np.testing.assert_allclose(layer.downsample2d.forward(unit), Z, atol=1e-12)

    layer = make("ConvTranspose2d", rng, float, 2, 3, 3, 2)[0]
    Z = layer.forward(A)
    dLdA = layer.backward(Z)
    assert layer.upsample2d.backward(np.ones((2, 2, 11, 13))).shape == A.shape
    np.testing.assert_allclose(layer.conv2d_stride1.forward(layer.upsample2d.forward(A)), Z, atol=1e-12)
    np.testing.assert_allclose(layer.upsample2d.backward(layer.conv2d_stride1.backward(Z)), dLdA, atol=1e-12)


def test_initial_weights():
    np.random.seed(3)  # noqa: NPY002
    layer = course.Conv2d(2, 4, 3, 1)
    assert np.array_equal(layer.W, np.random.RandomState(3).normal(0, 1.0, (4, 2, 3, 3)))
    assert np.array_equal(layer.b, np.zeros(4))
    calls = []

    def init(*shape):
        calls.append(shape)
        return np.full(shape, 0.5, np.float32)

    layer = course.Conv2d(2, 4, 3, 1, 0, init, init)
    assert calls == [(4, 2, 3, 3), (4,)]
    assert layer.forward(np.ones((1, 2, 3, 3), np.float32)).dtype == np.float32
    calls.clear()
    layer = course.ConvTranspose1d(2, 4, 3, 2, init)
    assert calls == [(4, 2, 3)]
    # The default bias has the dtype of the weights.
    assert layer.forward(np.ones((1, 2, 3), np.float32)).dtype == np.float32 == layer.dLdb.dtype


def test_star_import_brings_the_courses_names():
    names = {}
    exec("from fastconv.compat.cmu11785 import *", names)
    expected = {f"{name}{rank}d" for name in ("Conv", "ConvTranspose", "Upsample", "Downsample") for rank in (1, 2)}
    expected |= {"Conv1d_stride1", "Conv2d_stride1", "MaxPool2d", "MeanPool2d"}
    expected |= {"MaxPool2d_stride1", "MeanPool2d_stride1", "__builtins__"}
    assert set(names) == expected
