"""Strides a/b: upsample, convolve, downsample; and the identities between strides and sampling."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv
from fastconv import conv, conv_backward, conv_forward, downsample, upsample
from fastconv._fractional import resolve_fractional
from fastconv.geometry import GEOMETRY_DEFAULTS
from fastconv.layers import conv_relu_forward


def spread(x, factors):
    """`upsample`, by Kronecker's product."""
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
        assert algorithm == "depthwise" and "cannot do this forward" in str(error)
        return
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, atol=1e-4 if dtype == np.float32 else 1e-11)


def test_no_zeros_are_multiplied():
    """The multiply-adds of the parts are those of the upsampled image over b for each axis, as far as b divides."""
    settings = {**GEOMETRY_DEFAULTS, "stride": (Fraction(1, 2), Fraction(3, 4)), "pad": "same"}
    geometry = resolve_fractional((1, 3, 24, 24), (5, 3, 4, 8), settings)
    assert geometry.upsampled.flops == 8 * sum(part.geometry.flops for part in geometry.parts)
    # A kernel that is not a multiple of b, and dilation: taps are dealt out, none twice.
    for dilation, k in product((1, 2, 3, 4, 6), (1, 3, 5, 7)):
        settings = {**GEOMETRY_DEFAULTS, "stride": Fraction(1, 4), "pad": "full", "dilation": dilation}
        parts = resolve_fractional((1, 1, 9), (1, 1, k), settings).parts
        taps = sorted(t for part in parts for t in range(k)[part.taps[2]])
        assert taps == list(range(k))


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
    with pytest.raises(ValueError, match="algorithm 'winograd' cannot do this forward: the kernel is"):
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
    assert "2 convolutions of the image without its zeros" in text and text.count("-> out") == 3
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
