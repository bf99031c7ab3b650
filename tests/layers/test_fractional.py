"""Strides a/b and `upsample`: upsample, convolve, downsample; and the identities between strides and sampling."""

from fractions import Fraction
from itertools import product

import numpy as np
import oracle
import pytest
from hypothesis import assume, given, strategies as st

import fastconv
from fastconv import conv, conv_backward, conv_forward, downsample, upsample
from fastconv.geometry.conv import CONV_DEFAULTS, ConvGeometry
from fastconv.geometry.fractional import FractionalGeometry, resolve_sampled
from fastconv.graph import Tape
from fastconv.layers import conv_bn_relu_backward, conv_bn_relu_forward, conv_relu_backward, conv_relu_forward
from fastconv.layers.convolution import fractional as fractional_layers


def spread(x, factors):
    """The same as `upsample`, by a Kronecker product."""
    for axis, factor in enumerate(factors, 2):
        x = np.moveaxis(np.kron(np.moveaxis(x, axis, -1), np.eye(1, factor)), -1, axis)
    return x


def per_axis(strides):
    return tuple(s.denominator for s in strides), tuple(s.numerator for s in strides)


@st.composite
def layers(draw):
    rank = draw(st.integers(1, 3))

    def ints(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    groups = draw(st.integers(1, 2))
    x = (draw(st.integers(0, 2)), 2 * groups, *ints(1, 5 if rank < 3 else 3))
    w = (groups, 2, *ints(1, 4 if rank < 3 else 3))
    stride = tuple(map(Fraction, ints(1, 5), ints(1, 4)))
    options = {
        "pad": draw(
            st.sampled_from(["valid", "same", "same_lower", "full"])
            | st.just(tuple(zip(ints(0, 5), ints(0, 5), strict=True)))
        ),
        "dilation": ints(1, 4),
        "groups": groups,
        "pad_mode": draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
        "flip": draw(st.booleans()),
    }
    return x, w, stride, options


@given(layers(), st.sampled_from(["auto", "auto", "reference", "im2col", "implicit"]), st.integers(0, 2**32 - 1))
def test_is_upsample_convolve_downsample(layer, algorithm, seed):
    x_shape, w_shape, stride, options = layer
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[:1]))
    up, down = per_axis(stride)
    try:
        whole, kept = conv_forward(spread(x, up), w, b, stride=down, algorithm="reference", **options)
    except ValueError as error:
        with pytest.raises(ValueError) as found:
            conv(x, w, b, stride=stride, **options)
        assert str(found.value) == str(error)
        assume(False)
    out, cache = conv_forward(x, w, b, stride=stride, algorithm=algorithm, **options)
    np.testing.assert_allclose(out, whole, atol=1e-11)
    assert out.shape == fastconv.conv_output_shape(x_shape, w_shape, stride=stride, **options)
    if options["pad"] not in ("same", "same_lower"):
        dense = conv(spread(x, up), w, b, algorithm="reference", **options)
        np.testing.assert_allclose(out, dense[(..., *(slice(None, None, a) for a in down))], atol=1e-11)
    dout = rng.standard_normal(out.shape)
    dx, dw, db = conv_backward(dout, cache)
    dspread, wanted_dw, wanted_db = conv_backward(dout, kept)
    np.testing.assert_allclose(dx, dspread[(..., *(slice(None, None, f) for f in up))], atol=1e-11)
    np.testing.assert_allclose(dw, wanted_dw, atol=1e-11)
    np.testing.assert_allclose(db, wanted_db, atol=1e-11)


@pytest.mark.parametrize("algorithm", ["auto", *fastconv.algorithms()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_algorithms(algorithm, dtype, rng):
    x, w = rng.standard_normal((2, 4, 7, 6)).astype(dtype), rng.standard_normal((6, 4, 6, 6)).astype(dtype)
    stride = Fraction(1, 2)
    expected = conv(spread(x, (2, 2)).astype(dtype), w, pad=3, algorithm="reference")
    try:
        out = conv(x, w, pad=3, stride=stride, algorithm=algorithm)
    except ValueError as error:
        assert algorithm in ("depthwise", "separable") and "cannot do this forward" in str(error)
        return
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, atol=1e-4 if dtype == np.float32 else 1e-11)


def test_no_zeros_are_multiplied():
    """The parts have 1/b of the multiply-adds of the upsampled image along each axis, as far as b divides them."""
    settings = {**CONV_DEFAULTS, "stride": (Fraction(1, 2), Fraction(3, 4)), "pad": "same"}
    geometry = resolve_sampled((1, 3, 24, 24), (5, 3, 4, 8), settings)
    assert geometry.upsampled.flops == 8 * sum(part.geometry.flops for part in geometry.parts)
    # Kernels that are not a multiple of b, and dilation: each tap belongs to exactly one part.
    for dilation, k in product((1, 2, 3, 4, 6), (1, 3, 5, 7)):
        settings = {**CONV_DEFAULTS, "stride": Fraction(1, 4), "pad": "full", "dilation": dilation}
        parts = resolve_sampled((1, 1, 9), (1, 1, k), settings).parts
        taps = sorted(t for part in parts for t in range(k)[part.taps[2]])
        assert taps == list(range(k))


@st.composite
def upsampled_layers(draw):
    """Layers with `upsample`, with and without a common factor of stride and factor, and their padding in cells."""
    rank = draw(st.integers(1, 3))

    def ints(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    groups = draw(st.integers(1, 2))
    spatial, kernel = ints(1, 5 if rank < 3 else 3), ints(1, 4 if rank < 3 else 3)
    stride, up, dilation = ints(1, 6), ints(1, 6 if rank < 3 else 4), ints(1, 4)
    pad = draw(st.sampled_from(["valid", "same", "same_lower", "full", "pairs"]))
    sizes = [(n * b, k, a, d) for n, b, k, a, d in zip(spatial, up, kernel, stride, dilation, strict=True)]
    if pad == "pairs":
        pad = pads = tuple(zip(ints(0, 5), ints(0, 5), strict=True))
    elif pad in ("valid", "full"):
        pads = tuple((d * (k - 1) * (pad == "full"),) * 2 for _, k, _, d in sizes)
    else:
        totals = [max((-(-n // a) - 1) * a + d * (k - 1) + 1 - n, 0) for n, k, a, d in sizes]
        pads = tuple((t // 2, t - t // 2) if pad == "same" else (t - t // 2, t // 2) for t in totals)
    assume(all(n + sum(p) > d * (k - 1) for (n, k, _, d), p in zip(sizes, pads, strict=True)))
    pad_mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    most = {"reflect": -1, "circular": 0}.get(pad_mode, 99)
    assume(all(max(p) <= n + most for (n, *_), p in zip(sizes, pads, strict=True)))
    shapes = (draw(st.integers(1, 2)), 2 * groups, *spatial), (groups * draw(st.integers(1, 2)), 2, *kernel)
    options = {"pad": pad, "dilation": dilation, "groups": groups, "pad_mode": pad_mode, "flip": draw(st.booleans())}
    return *shapes, stride, up, pads, options


@given(
    upsampled_layers(),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["auto", "auto", "reference", "im2col", "implicit"]),
    st.integers(0, 2**32 - 1),
)
def test_upsample_against_the_oracle(layer, dtype, algorithm, seed):
    """The output and gradients equal the definition: insert zeros, convolve by loops at stride 1, keep every stride-th."""
    x_shape, w_shape, stride, up, pads, options = layer
    rng = np.random.default_rng(seed)
    x, w, b = (rng.integers(-8, 9, shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    grid, rank = spread(x, up), len(up)
    table, dense_shape = oracle.windows(
        grid.shape[2:], w_shape[2:], (1,) * rank, pads, options["dilation"], options["pad_mode"]
    )
    every, cells = ((..., *(slice(None, None, f) for f in factors)) for factors in (stride, up))
    dense = oracle.conv(grid, w, b, table, dense_shape, options["groups"], options["flip"])
    out, cache = conv_forward(x, w, b, upsample=up, stride=stride, algorithm=algorithm, **options)
    # Sums of small integers are exact in both dtypes.
    assert out.dtype == dtype and np.array_equal(out, dense[every])
    assert out.shape == fastconv.conv_output_shape(x_shape, w_shape, upsample=up, stride=stride, **options)
    dout = rng.integers(-8, 9, out.shape).astype(dtype)
    ddense = np.zeros(dense.shape)
    ddense[every] = dout
    dgrid, wanted_dw, wanted_db = oracle.conv_gradients(grid, w, ddense, table, options["groups"], options["flip"])
    dx, dw, db = conv_backward(dout, cache)
    for actual, wanted in ((dx, dgrid[cells]), (dw, wanted_dw), (db, wanted_db)):
        assert actual.dtype == dtype and np.array_equal(actual, wanted)


def test_every_stride_and_factor_along_one_axis(rng):
    """All strides, factors and dilations up to 6, with and without common factors, against the sum of products."""
    x, w = rng.integers(-8, 9, (1, 1, 5)).astype(float), rng.integers(1, 9, (1, 1, 6)).astype(float)
    for a, b, d, k, lo in product(range(1, 7), range(1, 7), (1, 2, 3, 6), (1, 3, 6), (0, 1, 3)):
        grid = np.zeros(lo + 5 * b + 30)
        grid[lo : lo + 5 * b : b] = x[0, 0]
        if lo + 5 * b + 2 < d * (k - 1) + 1:
            continue
        outs = (lo + 5 * b + 2 - d * (k - 1) - 1) // a + 1
        at = np.arange(outs)[:, None] * a + np.arange(k) * d
        out, cache = conv_forward(x, w[..., :k], None, upsample=b, stride=a, dilation=d, pad=[(lo, 2)])
        assert np.array_equal(out[0, 0], grid[at] @ w[0, 0, :k])
        dx, dw, _ = conv_backward(np.ones_like(out), cache)
        dgrid = np.zeros_like(grid)
        np.add.at(dgrid, at, np.broadcast_to(w[0, 0, :k], at.shape))
        assert np.array_equal(dx[0, 0], dgrid[lo : lo + 5 * b : b])
        assert np.array_equal(dw[0, 0], grid[at].sum(axis=0))


def test_what_a_fraction_cannot_say():
    x, w = np.arange(1.0, 5.0).reshape(1, 1, 4), np.ones((1, 1, 2))
    assert conv(x, w, upsample=2, stride=2).tolist() == [[[1, 2, 3, 4]]]
    assert conv(x, w, stride=Fraction(2, 2)).tolist() == conv(x, w).tolist() == [[[3, 5, 7]]]
    assert conv(x, w, upsample=2).tolist() == [[[1, 2, 2, 3, 3, 4, 4]]]


def test_where_fractions_can_say_it_they_say_the_same(rng):
    x, w, b = rng.standard_normal((2, 3, 7, 6)), rng.standard_normal((4, 3, 3, 4)), rng.standard_normal(4)
    for stride, up, fraction in ((2, 3, Fraction(2, 3)), ((3, 1), (2, 4), (Fraction(3, 2), Fraction(1, 4)))):
        out, cache = conv_forward(x, w, b, upsample=up, stride=stride, pad=2)
        same, other = conv_forward(x, w, b, stride=fraction, pad=2)
        assert np.array_equal(out, same)
        for actual, wanted in zip(conv_backward(out, cache), conv_backward(out, other), strict=True):
            assert np.array_equal(actual, wanted)
    for ones in (1, (1, 1), [1, 1], np.int64(1)):
        out, cache = conv_forward(x, w, b, upsample=ones, stride=2)
        assert isinstance(cache.geometry, ConvGeometry) and np.array_equal(out, conv(x, w, b, stride=2))


def test_outputs_and_taps_that_meet_zeros_only():
    x, b = np.arange(1.0, 4.0).reshape(1, 1, 3), np.array([7.0])
    out, cache = conv_forward(x, np.array([[[10.0]]]), b, upsample=4, stride=2)
    assert out.tolist() == [[[17, 7, 27, 7, 37, 7]]]
    assert [g.tolist() for g in conv_backward(np.ones_like(out), cache)] == [[[[10, 10, 10]]], [[[6]]], [6]]
    # With an even stride, every cell of the image lies between two outputs, so no output reads one.
    out, cache = conv_forward(x, np.array([[[10.0]]]), b, upsample=2, stride=2, pad=1)
    assert out.tolist() == [[[7, 7, 7, 7]]]
    assert [g.tolist() for g in conv_backward(np.ones_like(out), cache)] == [[[[0, 0, 0]]], [[[0]]], [4]]


def test_upsampling_multiplies_no_zeros(monkeypatch, rng):
    """The parts have as many products as a convolution of ones counts, and the upsampled image is never built."""
    grids = []
    monkeypatch.setattr(fractional_layers, "upsample", lambda *args: grids.append(args) or upsample(*args))
    for up, stride, parts in ((2, 2, 1), (4, 2, 4), (6, 4, 9), ((2, 3), (6, 3), 1), ((2, 1), 2, 1)):
        settings = {**CONV_DEFAULTS, "upsample": up, "stride": stride}
        geometry = resolve_sampled((2, 1, 9, 8), (1, 1, 5, 6), settings)
        assert isinstance(geometry, FractionalGeometry) and len(geometry.parts) == parts
        out, cache = conv_forward(np.ones((2, 1, 9, 8)), np.ones((1, 1, 5, 6)), None, upsample=up, stride=stride)
        assert geometry.flops == sum(part.geometry.flops for part in geometry.parts) == 2 * out.sum()
        conv_backward(out, cache)
    conv(np.ones((1, 1, 4)), np.ones((1, 1, 2)), upsample=2, pad_mode="circular")
    assert not grids
    conv(np.ones((1, 1, 4)), np.ones((1, 1, 2)), upsample=2, pad=1, pad_mode="circular")
    assert len(grids) == 1


def test_upsample_takes_every_way_in(rng):
    x, w, b = rng.standard_normal((2, 2, 5, 4)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal(3)
    param = {"upsample": (2, 4), "stride": 2, "pad": 1}
    expected = downsample(conv(spread(x, (2, 4)), w, b, pad=1), 2)
    out = np.full(expected.shape, np.nan)
    assert conv(x, w, b, out=out, threads=2, **param) is out
    np.testing.assert_allclose(out, expected, atol=1e-12)
    again, cache = conv_forward(x, w, b, param)
    assert np.array_equal(conv_forward(x, w, b, dict(param, upsample=[2, np.int32(4)]))[0], again)
    np.testing.assert_allclose(again, expected, atol=1e-12)
    dx, dw, db = conv_backward(expected, cache)
    rectified, relu_cache = conv_relu_forward(x, w, b, param)
    np.testing.assert_allclose(rectified, np.maximum(expected, 0), atol=1e-12)
    assert [g.shape for g in conv_relu_backward(rectified, relu_cache)] == [x.shape, w.shape, b.shape]
    normed, bn_cache = conv_bn_relu_forward(x, w, b, np.ones(3), np.zeros(3), param, {"mode": "train"})
    assert normed.shape == expected.shape and conv_bn_relu_backward(normed, bn_cache)[0].shape == x.shape
    tape = Tape()
    p = tape.params({"x": x, "w": w, "b": b})
    grads = tape.backward(tape(conv_forward, p["x"], p["w"], p["b"], param), expected)
    for name, wanted in (("x", dx), ("w", dw), ("b", db)):
        assert np.array_equal(grads[name], wanted)
    w[rng.random(w.shape) < 0.5] = 0
    _, cache = conv_forward(x, w, b, param)
    whole, pruned = conv_backward(expected, cache)[1], conv_backward(expected, cache, pruned=True)[1]
    np.testing.assert_allclose(pruned, np.where(w == 0, 0, whole), atol=1e-12)
    out.fill(7)
    with pytest.raises(ValueError, match="algorithm 'winograd' cannot do this forward: the kernel"):
        conv(x, w, algorithm="winograd", out=out, **param)
    with pytest.raises(ValueError, match="spatial axis 0: stride 2 leaves a remainder of 1: input 10"):
        conv(x, w, strict=True, out=out, **param)
    assert (out == 7).all()


def test_tools_know_upsample():
    x, w = (1, 2, 5, 5), (3, 2, 3, 3)
    geometry = fastconv.conv_geometry(x, w, upsample=(2, 1), stride=2, pad=1)
    assert geometry.x_shape == (1, 2, 10, 5) and [a.stride for a in geometry.axes] == [2, 2]
    assert geometry.out_shape == fastconv.conv_output_shape(x, w, upsample=(2, 1), stride=2, pad=1) == (1, 3, 5, 3)
    text = fastconv.explain(x, w, upsample=(2, 4), stride=2, pad=1)
    # Both strides are even, so only the middle tap reads cells, along the second axis in every other output.
    assert text.startswith("2-D cross-correlation: x (1, 2, 10, 20) * w (3, 2, 3, 3) -> out (1, 3, 5, 10)")
    assert (
        "\n1 convolution of the image without inserted zeros" in text and "* w (3, 2, 1, 1) -> out (1, 3, 5, 5)" in text
    )
    assert "\n0 convolutions of" in fastconv.explain((1, 1, 3), (1, 1, 1), upsample=2, stride=2, pad=1)
    assert fastconv.explain(x, w, upsample=1) == fastconv.explain(x, w)
    for function in (fastconv.toeplitz_matrix, fastconv.toeplitz_operator):
        with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unknown option 'upsample'; known are"):
            function(np.ones(w), x[1:], upsample=2)


def test_whole_fractions_are_ints(rng):
    x, w = rng.standard_normal((1, 2, 9, 8)), rng.standard_normal((3, 2, 3, 3))
    assert np.array_equal(conv(x, w, stride=(Fraction(2), 3)), conv(x, w, stride=(2, 3)))
    assert np.array_equal(conv(x, w, stride=[Fraction(4, 2), 1]), conv(x, w, stride=(2, 1)))


def test_takes_every_way_in(rng):
    x, w, b = rng.standard_normal((2, 2, 5, 5)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal(3)
    stride = Fraction(3, 2)
    expected = conv(spread(x, (2, 2)), w, b, stride=3, pad=1)
    out = np.empty(expected.shape)
    assert conv(x, w, b, stride=stride, pad=1, out=out, threads=2) is out
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(conv_forward(x, w, b, {"stride": stride, "pad": 1})[0], expected, atol=1e-12)
    np.testing.assert_allclose(
        conv_relu_forward(x, w, b, {"stride": stride, "pad": 1})[0], np.maximum(expected, 0), atol=1e-12
    )
    with pytest.raises(ValueError, match="out overlaps x"):
        conv(x, np.ones((2, 2, 1, 1)), stride=Fraction(1, 1), out=x)
    out.fill(7)
    with pytest.raises(ValueError, match="algorithm 'winograd' cannot do this forward: the kernel"):
        conv(x, w, stride=stride, pad=1, algorithm="winograd", out=out)
    assert (out == 7).all()
    whole = conv(np.zeros((0, 2, 5, 5)), w, stride=stride)
    assert whole.shape == (0, 3, 3, 3)
    _, cache = conv_forward(np.zeros((0, 2, 5, 5)), w, b, stride=stride)
    dx, dw, db = conv_backward(whole, cache)
    assert dx.shape == (0, 2, 5, 5) and not dw.any() and not db.any()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_pruned_weights_stay_pruned(mode, rng):
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 4))
    w[rng.random(w.shape) < 0.7] = 0
    out, cache = conv_forward(x, w, None, stride=Fraction(2, 3), pad=2, pad_mode=mode, flip=True)
    dout = rng.standard_normal(out.shape)
    whole, pruned = conv_backward(dout, cache)[1], conv_backward(dout, cache, pruned=True)[1]
    np.testing.assert_allclose(pruned, np.where(w == 0, 0, whole), atol=1e-12)


def test_geometry_tools():
    x, w, stride = (1, 2, 5, 5), (3, 2, 3, 3), (Fraction(3, 2), 2)
    geometry = fastconv.conv_geometry(x, w, stride=stride, pad=1)
    assert geometry.x_shape == (1, 2, 10, 5) and [a.stride for a in geometry.axes] == [3, 2]
    assert geometry.out_shape == fastconv.conv_output_shape(x, w, stride=stride, pad=1) == (1, 3, 4, 3)
    text = fastconv.explain(x, w, stride=stride, pad=1)
    assert "2 convolutions of the image without inserted zeros" in text and text.count("-> out") == 3
    assert "without its zeros" not in fastconv.explain(x, w, stride=stride, pad=1, pad_mode="circular")
    with pytest.raises(ValueError, match="spatial axis 0: stride 3 leaves a remainder of 1: input 10"):
        fastconv.conv_geometry(x, w, stride=(Fraction(3, 2), 1), strict=True)
    with pytest.raises(ValueError, match="spatial axis 0: stride 3 leaves a remainder"):
        conv(np.ones(x), np.ones(w), stride=(Fraction(3, 2), 1), strict=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: conv(x, w, stride=Fraction(0)), ValueError, r"stride must be above 0, got Fraction\(0, 1\)"),
        (lambda x, w: conv(x, w, stride=(1, Fraction(-1, 2))), ValueError, r"stride\[1\] must be above 0"),
        (
            lambda x, w: conv(x, w, stride=(Fraction(1, 2), 1.5)),
            TypeError,
            r"stride\[1\] must be .*Fraction .*, got 1.5",
        ),
        (lambda x, w: conv(x, w, stride=(Fraction(1, 2),)), ValueError, "stride has 1 value"),
        (lambda x, w: conv(x, w, stride=Fraction(1, 10**18)), ValueError, "more elements than can be addressed"),
        (lambda x, w: conv(x, w[..., :0], stride=Fraction(1, 2)), ValueError, "empty kernel"),
        (lambda x, w: conv(x[0, 0], w[0, 0], stride=Fraction(1, 2)), ValueError, "x has 2 axes"),
        (lambda x, w: fastconv.im2col(x, 3, stride=Fraction(1, 2)), TypeError, r"stride must be an int >= 1, got Fr"),
        (lambda x, w: conv(x, w, upsample=0), ValueError, "upsample must be an int >= 1, got 0"),
        (lambda x, w: conv(x, w, upsample=(2, -1)), ValueError, r"upsample\[1\] must be an int >= 1, got -1"),
        (lambda x, w: conv(x, w, upsample=1.0), TypeError, r"upsample must be an int >= 1, got 1\.0"),
        (lambda x, w: conv(x, w, upsample=True), TypeError, "upsample must be an int >= 1, got True"),
        (lambda x, w: conv(x, w, upsample=None), TypeError, "upsample must be an int >= 1, got None"),
        (lambda x, w: conv(x, w, upsample="2"), TypeError, "upsample must be an int >= 1, got '2'"),
        (lambda x, w: conv(x, w, upsample=Fraction(1, 2)), TypeError, r"upsample must be an int >= 1, got Fraction"),
        (lambda x, w: conv(x, w, upsample=(1, 2, 3)), ValueError, "upsample has 3 values, .* for 2 spatial axes"),
        (lambda x, w: conv(x, w, upsample=10**18), ValueError, "the upsampled x .* more elements than can be addr"),
        (lambda x, w: conv(x[0, 0], w[0, 0], upsample=2), ValueError, "x has 2 axes"),
        (lambda x, w: conv(x, w[..., :0], upsample=2), ValueError, "empty kernel"),
        (
            lambda x, w: conv(x, w, upsample=2, stride=Fraction(1, 2)),
            ValueError,
            r"stride is Fraction\(1, 2\) and upsample is 2; give one or the other",
        ),
        (lambda x, w: conv(x, w, upsample=(1, 2), stride=(Fraction(3), 1)), ValueError, "give one or the other"),
        (lambda x, w: fastconv.conv_geometry(x.shape, w.shape, upsample=0), ValueError, "upsample must be an int"),
        (lambda x, w: fastconv.explain(x.shape, w.shape, upsample=0), ValueError, "upsample must be an int"),
        (lambda x, w: fastconv.im2col(x, 3, upsample=2), TypeError, "upsample"),
        (lambda x, w: upsample(x, 0), ValueError, "factor must be an int >= 1, got 0"),
        (lambda x, w: upsample(x, Fraction(3, 2)), TypeError, "factor must be an int >= 1"),
        (lambda x, w: upsample(x, (1, 2, 3)), ValueError, "factor has 3 values"),
        (lambda x, w: upsample(x, 10**18), ValueError, "the result .* more elements than can be addressed"),
        (lambda x, w: upsample(x[0, 0], 2), ValueError, "x has 2 axes"),
        (lambda x, w: downsample(x, -1), ValueError, "factor must be an int >= 1, got -1"),
        (lambda x, w: downsample(x * 1j, 2), TypeError, "complex128"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)))


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 4), (1, 2, 3, 2, 4), (0, 3, 5), (2, 3, 0, 4)])
def test_sampling(shape, rng):
    x = rng.standard_normal(shape)
    factors = (2, 3, 1)[: len(shape) - 2]
    up = upsample(x, factors)
    if x.size:
        assert np.array_equal(up, spread(x, factors))
    assert up.shape == (*shape[:2], *(n * f for n, f in zip(shape[2:], factors, strict=True)))
    assert np.array_equal(downsample(up, factors), x)
    down = downsample(x, factors)
    assert not np.shares_memory(downsample(x, 1), x) and down.flags.c_contiguous
    y = rng.standard_normal(up.shape)
    assert np.isclose(np.vdot(up, y), np.vdot(x, downsample(y, factors)), rtol=1e-12)
    assert down.shape == (*shape[:2], *(-(-n // f) for n, f in zip(shape[2:], factors, strict=True)))
    assert upsample(np.ones((1, 1, 2), np.uint8), 2).dtype == np.float64
    assert downsample(x[..., ::-1].astype(">f4"), 2).dtype == np.float32


def test_a_stride_is_stride_1_then_downsampling(rng):
    x, w = rng.integers(-4, 5, (2, 3, 11, 10)).astype(float), rng.integers(-4, 5, (4, 3, 3, 2)).astype(float)
    for stride in (2, 3, (4, 1)):
        assert np.array_equal(conv(x, w, stride=stride, pad=1), downsample(conv(x, w, pad=1), stride))
