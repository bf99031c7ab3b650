"""Transposed convolution: against loops that scatter kernels, against PyTorch, and by the identities that define it."""

import functools
import itertools
import math

import numpy as np
import pytest
from cases import kernels_for
from hypothesis import assume, given, strategies as st

import fastconv
from fastconv import conv, conv_transpose, conv_transpose_backward, conv_transpose_forward, toeplitz_matrix

CASES = {
    "1d": ((2, 3, 5), (3, 4, 3), {}),
    "1d_stride": ((2, 4, 6), (4, 2, 4), {"stride": 2, "pad": 1}),
    "1d_crop_one_side": ((1, 2, 6), (2, 2, 5), {"stride": 2, "pad": [(0, 3)]}),
    "1d_dilated_output_pad": ((2, 2, 5), (2, 3, 3), {"dilation": 3, "output_pad": 2}),
    "1d_output_pad_shows_what_was_cropped": ((1, 2, 5), (2, 3, 3), {"dilation": 3, "output_pad": 2, "pad": 1}),
    "1d_output_pad_past_an_empty_core": ((1, 1, 1), (1, 1, 2), {"dilation": 5, "output_pad": 4, "pad": [(6, 2)]}),
    "1d_crop_beyond_the_result": ((1, 1, 1), (1, 1, 2), {"dilation": 5, "output_pad": 4, "pad": [(7, 0)]}),
    "2d": ((2, 3, 4, 5), (3, 2, 3, 3), {}),
    "2d_dcgan": ((2, 6, 4, 4), (6, 5, 4, 4), {"stride": 2, "pad": 1}),
    "2d_unet": ((2, 6, 3, 5), (6, 3, 2, 2), {"stride": 2}),
    "2d_k3_output_pad": ((2, 4, 4, 3), (4, 3, 3, 3), {"stride": 2, "pad": 1, "output_pad": 1}),
    "2d_fcn": ((1, 3, 3, 4), (3, 1, 16, 16), {"stride": 8, "pad": 4, "groups": 3}),
    "2d_stride_over_kernel": ((2, 2, 3, 3), (2, 3, 2, 2), {"stride": 4, "output_pad": (3, 0)}),
    "2d_asymmetric": ((2, 2, 4, 5), (2, 3, 4, 3), {"stride": (2, 3), "pad": [(0, 2), (1, 0)]}),
    "2d_groups": ((2, 4, 4, 4), (4, 3, 3, 2), {"stride": 2, "groups": 2, "output_pad": (1, 0)}),
    "2d_winograd": ((2, 9, 7, 8), (9, 5, 3, 3), {"pad": 1}),
    "2d_pointwise": ((2, 5, 4, 4), (5, 7, 1, 1), {}),
    "2d_dilated": ((2, 3, 4, 4), (3, 2, 3, 3), {"dilation": (2, 3), "stride": (3, 2), "pad": 2, "output_pad": (2, 1)}),
    "2d_dilated_output_pad": ((2, 2, 3, 4), (2, 4, 2, 2), {"dilation": 3, "output_pad": (2, 1), "groups": 2}),
    "3d": ((2, 2, 2, 3, 3), (2, 3, 2, 3, 2), {"stride": 2, "pad": (0, 1, 0), "output_pad": 1}),
    "3d_dilated": ((1, 2, 2, 3, 2), (2, 1, 2, 2, 3), {"dilation": (2, 1, 2), "groups": 2}),
    "empty_batch": ((0, 3, 4, 4), (3, 2, 3, 3), {"stride": 2}),
}
cases = pytest.mark.parametrize(("x_shape", "w_shape", "options"), CASES.values(), ids=CASES)


def each(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def scatter(x, w, b, stride=1, pad=0, output_pad=0, dilation=1, groups=1):
    """The definition: every cell of x adds its kernel to the full result, which is then cropped and padded."""
    rank = x.ndim - 2
    stride, dilation, more = each(stride, rank), each(dilation, rank), each(output_pad, rank)
    pads = [(p, p) if isinstance(p, int) else p for p in each(pad, rank)]
    full = [
        (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], stride, dilation, w.shape[2:], strict=True)
    ]
    filters, inside = w.shape[1], x.shape[1] // groups
    # Cells past the full result are computed, too, because output_pad may show them.
    result = np.zeros((len(x), filters * groups, *(n + m for n, m in zip(full, more, strict=True))))
    for c in range(x.shape[1]):
        group = c // inside
        for at in itertools.product(*map(range, x.shape[2:])):
            for tap in itertools.product(*map(range, w.shape[2:])):
                to = tuple(o * s + t * d for o, s, t, d in zip(at, stride, tap, dilation, strict=True))
                value = x[(slice(None), c, *at)][:, None] * w[(c, slice(None), *tap)]
                result[(slice(None), slice(group * filters, (group + 1) * filters), *to)] += value
    crop = []
    for n, m, (lo, hi) in zip(full, more, pads, strict=True):
        crop.append(slice(lo, lo + n - lo - hi + m))
    # A crop beyond the full result contains zeros.
    missing = [max(c.stop - size, 0) for c, size in zip(crop, result.shape[2:], strict=True)]
    result = np.pad(result, [(0, 0), (0, 0), *((0, m) for m in missing)])[(..., *crop)]
    return result if b is None else result + b.reshape(-1, *(1,) * rank)


def arrays(x_shape, w_shape, groups=1, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = x_shape, w_shape, (w_shape[1] * groups,)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


@functools.cache
def by_loops(name, dtype, rank_one):
    """The output with and without bias by `scatter`, and the gradients by `reference` in float64.

    `test_gradients_cell_by_cell` checks the gradients of `reference`.
    """
    x_shape, w_shape, options = CASES[name]
    x, w, b = (array.astype(float) for array in arrays(x_shape, w_shape, options.get("groups", 1), dtype))
    if rank_one:
        w = kernels_for("separable", w.astype(dtype)).astype(float)
    out, cache = conv_transpose_forward(x, w, b, options, algorithm="reference")
    dout = np.random.default_rng(1).standard_normal(out.shape).astype(dtype).astype(float)
    return scatter(x, w, b, **options), scatter(x, w, None, **options), conv_transpose_backward(dout, cache)


@pytest.mark.parametrize("algorithm", ["auto", *fastconv.algorithms("backward_data")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", CASES)
def test_all(name, dtype, algorithm):
    x_shape, w_shape, options = CASES[name]
    x, w, b = arrays(x_shape, w_shape, options.get("groups", 1), dtype)
    w = kernels_for(algorithm, w)
    with_bias, without, gradients = by_loops(name, dtype, algorithm == "separable")
    try:
        out, cache = conv_transpose_forward(x, w, b, options, algorithm=algorithm)
    except ValueError as error:
        assert algorithm != "auto" and "cannot do this backward_data" in str(error)
        return
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert out.dtype == dtype and out.flags.c_contiguous
    np.testing.assert_allclose(out, with_bias, atol=tolerance)
    np.testing.assert_allclose(conv_transpose(x, w, algorithm=algorithm, **options), without, atol=tolerance)
    dout = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    dx, dw, db = conv_transpose_backward(dout, cache)
    for gradient, array, values in zip((dx, dw, db), (x, w, b), gradients, strict=True):
        assert gradient.shape == array.shape and gradient.dtype == dtype
        np.testing.assert_allclose(gradient, values, atol=tolerance * 10)
    np.testing.assert_allclose(db, dout.sum(axis=(0, *range(2, x.ndim))), atol=tolerance * 10)
    assert conv_transpose_backward(dout, cache, need_dx=False, need_dw=False, need_db=False) == (None, None, None)


@pytest.mark.parametrize("algorithm", ["auto", "reference"])
@cases
def test_gradients_cell_by_cell(x_shape, w_shape, options, algorithm):
    """Both ops are linear, so each gradient is the op applied to unit vectors, times dout."""
    x, w, _ = arrays(x_shape, w_shape, options.get("groups", 1))
    out, cache = conv_transpose_forward(x, w, None, options, algorithm=algorithm)
    dout = np.random.default_rng(1).standard_normal(out.shape)
    dx, dw, db = conv_transpose_backward(dout, cache)
    assert db is None
    rng = np.random.default_rng(2)
    for gradient, array, index in ((dx, x, 0), (dw, w, 1)):
        for _ in range(5 if array.size else 0):
            unit = np.zeros(array.shape)
            at = tuple(rng.integers(0, n) for n in array.shape)
            unit[at] = 1
            pair = [x, w]
            pair[index] = unit
            assert math.isclose(gradient[at], np.vdot(scatter(*pair, None, **options), dout), abs_tol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torch(rank, dtype, torch):
    call = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    for stride, pad, more, dilation, groups in itertools.product((1, 2, 3), (0, 2), (0, 1, 2), (1, 3), (1, 2)):
        if more >= max(stride, dilation):
            continue
        x, w, b = arrays((2, 4, *(5, 4, 3)[:rank]), (4, 3, *(3, 2, 4)[:rank]), groups, dtype)
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        expected = call(*leaves, stride, pad, more, groups, dilation)
        options = {"stride": stride, "pad": pad, "output_pad": more, "dilation": dilation, "groups": groups}
        out, cache = conv_transpose_forward(x, w, b, **options)
        np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance)
        dout = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
        wanted = torch.autograd.grad(expected, leaves, torch.tensor(dout))
        for actual, gradient in zip(conv_transpose_backward(dout, cache), wanted, strict=True):
            np.testing.assert_allclose(actual, gradient.numpy(), atol=tolerance * 10)


@st.composite
def layers(draw):
    rank = draw(st.integers(1, 3))

    def ints(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    groups = draw(st.integers(1, 2))
    x = (draw(st.integers(0, 2)), groups * draw(st.integers(1, 2)), *ints(1, 4))
    w = (x[1], draw(st.integers(1, 2)), *ints(1, 3))
    stride, dilation = ints(1, 3), ints(1, 3)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    pad = tuple(zip(ints(0, 4), ints(0, 4), strict=True))
    return x, w, {"stride": stride, "dilation": dilation, "output_pad": more, "pad": pad, "groups": groups}


@given(layers())
def test_random(layer):
    x_shape, w_shape, options = layer
    x, w, b = arrays(x_shape, w_shape, options["groups"])
    try:
        out, cache = conv_transpose_forward(x, w, b, **options)
    except ValueError as error:
        assume("crop the whole output" not in str(error))
        raise
    np.testing.assert_allclose(out, scatter(x, w, b, **options), atol=1e-11)
    dout = np.random.default_rng(1).standard_normal(out.shape)
    dx, dw, _ = conv_transpose_backward(dout, cache)
    np.testing.assert_allclose(np.vdot(x, dx), np.vdot(scatter(x, w, None, **options), dout), atol=1e-10)
    np.testing.assert_allclose(np.vdot(w, dw), np.vdot(x, dx), atol=1e-10)


@pytest.mark.parametrize("pad", [0, 1, [(2, 0), (0, 1)], "valid", "same", "same_lower", "full"], ids=str)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_dx_of_a_convolution_is_the_transposed_convolution(pad, stride, dilation, rng):
    """dx = transposed convolution of dout = correlation of the spread dout with the flipped kernel = C^T dout."""
    options = {"stride": stride, "pad": pad, "dilation": dilation}
    x, w = rng.integers(-4, 5, (2, 3, 12, 9)).astype(float), rng.integers(-4, 5, (4, 3, 3, 2)).astype(float)
    out, cache = fastconv.conv_forward(x, w, None, **options)
    dout = rng.integers(-4, 5, out.shape).astype(float)
    dx = fastconv.conv_backward(dout, cache)[0]
    # All numbers are integers, so results are equal to the bit.
    matrix = np.zeros((out[0].size, x[0].size))
    for i in range(x[0].size):
        unit = np.zeros((1, *x.shape[1:]))
        unit.flat[i] = 1
        matrix[:, i] = conv(unit, w, **options).ravel()
    assert np.array_equal(dx.reshape(2, -1), dout.reshape(2, -1) @ matrix)
    assert np.array_equal(dx.reshape(2, -1).T, toeplitz_matrix(w, x.shape[1:], **options).T @ dout.reshape(2, -1).T)

    more = {}
    if pad in ("same", "same_lower"):
        # The transpose makes images whose sizes are multiples of the stride; such an image has this gradient.
        whole = (2, 3, *(n * stride for n in out.shape[2:]))
        dx = fastconv.conv_backward(dout, fastconv.conv_forward(np.zeros(whole), w, None, **options)[1])[0]
    else:
        # output_pad restores the cells that the stride left over.
        axes = fastconv.conv_geometry(x.shape, w.shape, **options).axes
        more["output_pad"] = tuple((a.size + a.lo + a.hi - dilation * (a.k - 1) - 1) % stride for a in axes)
    assert np.array_equal(conv_transpose(dout, w, **options, **more), dx)


def test_correlation_with_the_flipped_kernel(rng):
    dout, w = rng.integers(-4, 5, (2, 4, 5, 6)).astype(float), rng.integers(-4, 5, (4, 3, 3, 2)).astype(float)
    turned = w.transpose(1, 0, 2, 3)
    assert np.array_equal(conv_transpose(dout, w), conv(dout, turned, pad="full", flip=True))
    assert np.array_equal(conv_transpose(dout, w), conv(dout, turned[..., ::-1, ::-1], pad="full"))
    spread = fastconv.upsample(dout, 3)[..., :-2, :-2]
    assert np.array_equal(conv_transpose(dout, w, stride=3), conv(spread, turned, pad="full", flip=True))


@pytest.mark.parametrize("width", [3, 17, 40])
def test_bias_in_every_kernel(width, isa, rng):
    """Rows shorter and longer than a vector, with the phases of a row together and apart."""
    x, w, b = rng.standard_normal((2, 3, 5, width)), rng.standard_normal((3, 1, 4, 4)), rng.standard_normal(3)
    for options in ({"stride": 2, "pad": 1}, {"stride": (2, 1)}, {"stride": 3}, {"stride": 5, "output_pad": 2}):
        expected = scatter(x, w, b, groups=3, **options)
        for algorithm in ("depthwise", "implicit", "im2col"):
            out = conv_transpose(x, w, b, groups=3, algorithm=algorithm, **options)
            np.testing.assert_allclose(out, expected, atol=1e-12)


def test_same_is_the_transpose_of_same(rng):
    x, w = rng.standard_normal((1, 2, 5, 4)), rng.standard_normal((2, 3, 3, 5))
    for stride in (1, 2, 4, 7):
        out = conv_transpose(x, w, stride=stride, pad="same")
        assert out.shape == (1, 3, 5 * stride, 4 * stride)
        image = rng.standard_normal(out.shape)
        assert np.isclose(np.vdot(conv(image, w, stride=stride, pad="same"), x), np.vdot(image, out))


def test_bilinear_upsampling_keeps_a_plane_flat():
    """With the bilinear weights of FCN, a constant image stays constant away from the border."""
    ramp = 1 - np.abs(np.arange(4) - 1.5) / 2
    out = conv_transpose(np.ones((1, 1, 6, 6)), np.outer(ramp, ramp)[None, None], stride=2, pad=1)
    assert out.shape == (1, 1, 12, 12) and np.allclose(out[..., 1:-1, 1:-1], 1)


def test_worked_example():
    """The example of Dive into Deep Learning, section 14.10."""
    x, w = np.array([[[[0.0, 1.0], [2.0, 3.0]]]]), np.array([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert np.array_equal(conv_transpose(x, w)[0, 0], [[0, 0, 1], [0, 4, 6], [4, 12, 9]])
    assert np.array_equal(
        conv_transpose(x, w, stride=2)[0, 0], [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]
    )
    assert np.array_equal(conv_transpose(x, w, pad=1), [[[[4]]]])


def test_layouts_and_dtypes(rng):
    from cases import variants

    x, w, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal(2)
    out = conv_transpose(x, w, b, stride=2)
    for (name, other), kernel in zip(variants(x).items(), variants(w).values(), strict=True):
        assert np.array_equal(conv_transpose(other, kernel, b, stride=2), out), name
    assert conv_transpose(x.astype(np.float16), w.astype(np.float32)).dtype == np.float32
    assert conv_transpose(np.ones((1, 1, 2), int), np.ones((1, 1, 2), int)).dtype == np.float64
    assert conv_transpose(x.astype("f4"), w.astype("f4"), b).dtype == np.float64


X, W = np.ones((2, 4, 5, 5)), np.ones((4, 3, 3, 3))
BAD = [
    (lambda: conv_transpose(X, W, output_pad=1), ValueError, "output_pad 1 must be smaller than .* stride 1 and"),
    (lambda: conv_transpose(X, W, stride=2, output_pad=(0, 2)), ValueError, "axis 1: output_pad 2 .* legal are 0 to 1"),
    (lambda: conv_transpose(X, W, dilation=2, output_pad=2), ValueError, "dilation 2; legal are 0 to 1"),
    (lambda: conv_transpose(X, W, output_pad=-1), ValueError, "output_pad must be an int >= 0, got -1"),
    (
        lambda: conv_transpose(X, W, stride=2, pad="same", output_pad=1),
        ValueError,
        r"output_pad is \(1, 1\), but must be 0",
    ),
    (lambda: conv_transpose(X, W, pad="half"), ValueError, "pad is 'half'; legal names are 'valid', 'same'"),
    (lambda: conv_transpose(X, W, pad=-1), ValueError, "pad must be an int >= 0, got -1"),
    (lambda: conv_transpose(X, W, pad=np.array([0.5, 0.5])), TypeError, r"pad\[0\] must be an int >= 0, got 0.5"),
    (lambda: conv_transpose(X, W, padding=1), TypeError, "unknown option 'padding'; .*; did you mean 'pad'"),
    (lambda: conv_transpose(X, W, output_padding=1), TypeError, "did you mean 'output_pad'"),
    (
        lambda: conv_transpose(X, W, pad=4),
        ValueError,
        "axis 0: pad .4, 4. would crop the whole output: .* give 7 cells, .* less than 7",
    ),
    (lambda: conv_transpose(X, W[:3]), ValueError, r"4 channels, so w must be \(4, F // groups, \*kernel\)"),
    (lambda: conv_transpose(X, W[0]), ValueError, r"w has 3 axes.*w must be \(C, F // groups"),
    (lambda: conv_transpose(X[0, 0], W[0, 0]), ValueError, "x has 2 axes"),
    (lambda: conv_transpose(X, W, groups=3), ValueError, "groups is 3, which must divide the 4 channels of x"),
    (lambda: conv_transpose(X, W, np.ones(4)), ValueError, r"b has shape \(4,\).*b must be \(3,\)"),
    (
        lambda: conv_transpose(X, W, np.ones(3), groups=2),
        ValueError,
        r"with 2 groups gives 6 output channels; b must be \(6,\) or None",
    ),
    (lambda: conv_transpose(X[:, :, :0], W), ValueError, "empty spatial axis"),
    (lambda: conv_transpose(X, W[:, :, :0]), ValueError, "empty kernel"),
    (lambda: conv_transpose(X, W[:, :0]), ValueError, "at least one channel and one filter"),
    (lambda: conv_transpose(X, W, stride=10**18), ValueError, "more elements than can be addressed"),
    (lambda: conv_transpose(X, W, flip=True), TypeError, "unknown option 'flip'; known are stride, pad, output_pad"),
    (lambda: conv_transpose(X * 1j, W), TypeError, "x has dtype complex128"),
    (lambda: conv_transpose(X, W, stride=3, algorithm="winograd"), ValueError, "cannot do this backward_data"),
    (lambda: conv_transpose_backward(X, fastconv.conv_forward(X, W[:, :1].repeat(4, 1), None)[1]), TypeError, "cache"),
    (lambda: conv_transpose_backward(X, conv_transpose_forward(X, W, None)[1]), ValueError, "dout has shape"),
    (
        lambda: conv_transpose_backward(X, conv_transpose_forward(X, W, None)[1]._replace(x=X[:1])),
        ValueError,
        r"cache holds x \(1, 4, 5, 5\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2][:40] for case in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
