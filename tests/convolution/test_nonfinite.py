"""With inf and NaN in weights, images and gradients, results are inf or NaN exactly where the sum of products is."""

import functools
import itertools

import numpy as np
import oracle
import pytest
from cases import CASES, in_case, read_only, supported

from fastconv import conv_backward, conv_forward, conv_transpose
from fastconv.convolution import taps
from fastconv.convolution.implicit_gemm import algorithm as implicit

LAYERS = [case for case in CASES if all(case.x) and all(case.geometry.out_shape)]
#: The weights to replace, as flat indices from the front or the end, and their values.
BAD_WEIGHTS = {
    "first": {0: np.nan},
    "last": {-1: np.inf},
    "both signs": {0: np.inf, -1: -np.inf},
}


def same_where_not_finite(actual, expected):
    """NaN, inf and -inf are in the same places, and the other values are equal up to rounding."""
    for find in (np.isnan, np.isposinf, np.isneginf):
        assert np.array_equal(find(actual), find(expected)), find.__name__
    finite = np.isfinite(expected)
    scale = np.abs(expected[finite]).max(initial=1.0)
    atol = scale * (2e-5 if actual.dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(actual[finite], expected[finite], rtol=0, atol=atol)


def check(algorithm, case, dtype, bad):
    x, w, dout, expected = spoilt(case, dtype, bad)
    with np.errstate(invalid="ignore", over="ignore"):
        out, cache = conv_forward(x, w, None, case.options, algorithm=algorithm)
        results = out, *conv_backward(dout, cache)[:2]
    for actual, wanted in zip(results, expected, strict=True):
        assert actual.dtype == dtype
        same_where_not_finite(actual, wanted)


@functools.lru_cache(maxsize=8)
def spoilt(case, dtype, bad):
    """x, w and dout with values that are not finite, and the results of the oracle."""
    rng, (x, w, _), dout = np.random.default_rng(1), case.arrays(dtype), case.gradient(dtype)
    if bad == "everything":
        for array in (x, w, dout):
            places = rng.choice(array.size, min(3, array.size), replace=False)
            array.flat[places] = (np.nan, np.inf, -np.inf)[: len(places)]
    else:
        for at, value in BAD_WEIGHTS[bad].items():
            w.flat[at] = value
    table, out_spatial = case.table()
    with np.errstate(invalid="ignore", over="ignore"):
        out = oracle.conv(x, w, None, table, out_spatial, **case.shared)
        gradients = oracle.conv_gradients(x, w, dout, table, **case.shared)[:2]
    return *read_only(x, w, dout), read_only(out, *gradients)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_weights_in_implicit(case, dtype, isas):
    for isa in isas:
        for bad in ("first", "last") if dtype == np.float32 else ("both signs",):
            with in_case(f"{isa}, {bad}"):
                check("implicit", case, dtype, bad)


@supported(["im2col", "reference", "depthwise", "sparse", "toeplitz"], LAYERS)
def test_weights(algorithm, case):
    """None of these weights is zero, so `sparse` and `toeplitz` skip none."""
    for bad in ("first", "both signs"):
        check(algorithm, case, np.float32, bad)


@supported(["implicit", "im2col", "depthwise"], LAYERS)
def test_everything_at_once(algorithm, case, blocks):
    """Weights, images and gradients all contain NaN, inf and -inf, in one layer with padding."""
    check(algorithm, case, np.float32, "everything")


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_with_bias(stride, isa, rng):
    """The output of a transposed convolution has products with cells only, and none with the padding around them."""
    x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((4, 3, 4, 2))
    b = rng.standard_normal(3)
    w[1, 2, 0, 1], w[3, 0, 3, 0], w[2, 0, 3, 0] = np.nan, np.inf, np.inf
    wanted = np.zeros((2, 3, 4 * stride + 4, 5 * stride + 2))
    with np.errstate(invalid="ignore"):
        for i, j in np.ndindex(5, 6):
            here = np.einsum("nc,cfkl->nfkl", x[:, :, i, j], w)
            wanted[:, :, i * stride : i * stride + 4, j * stride : j * stride + 2] += here
        wanted += b[:, None, None]
        out = conv_transpose(x, w, b, stride=stride, algorithm="implicit")
    assert 0 < np.isnan(wanted).sum() < wanted.size / 2
    same_where_not_finite(out, wanted)


@pytest.mark.parametrize("algorithm", ["implicit", "sparse"])
def test_weights_that_are_all_bad(algorithm, rng, monkeypatch):
    """All weights are NaN, as in a net that diverged: dx is NaN wherever an output reads the image, also in batches."""
    monkeypatch.setattr(taps, "_PRODUCT_BYTES", 1)
    x, w = rng.standard_normal((3, 4, 9, 9)).astype(np.float32), np.full((5, 4, 3, 3), np.nan, np.float32)
    out, cache = conv_forward(x, w, None, stride=4, algorithm=algorithm)
    dx, _, _ = conv_backward(np.ones_like(out), cache, need_dw=False)
    met = np.zeros((9, 9), bool)
    for i, j in itertools.product((0, 4), repeat=2):
        met[i : i + 3, j : j + 3] = True
    assert np.array_equal(np.isnan(dx), np.broadcast_to(met, dx.shape))
    assert not dx[:, :, ~met].any()


@pytest.mark.parametrize("algorithm", ["implicit", "sparse"])
def test_zero_weights_and_infinite_gradients(algorithm):
    """In `implicit` zero times infinity is NaN; `sparse` skips zero weights, also next to a NaN."""
    w = np.array([0.0, 1.0, np.nan]).reshape(1, 1, 3)
    out, cache = conv_forward(np.ones((1, 1, 8)), w, None, algorithm=algorithm)
    dout = np.zeros_like(out)
    dout[0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        dx = conv_backward(dout, cache, need_dw=False)[0][0, 0]
    # Outputs 0 to 5 read cells 2 to 7 with the last tap; output 0 reads cell 0 with the first tap and cell 1 with the
    # second.
    first = np.nan if algorithm == "implicit" else 0.0
    np.testing.assert_array_equal(dx, [first, np.inf, *[np.nan] * 6])


def test_finite_weights_are_computed_once(monkeypatch, rng):
    """If only the gradient holds inf and NaN, dx is computed once. If all values are finite, no weight is checked."""
    redone = []
    original = taps.data_by_taps
    monkeypatch.setattr(implicit, "data_by_taps", lambda *a: redone.append(1) or original(*a))
    looked = []
    monkeypatch.setattr(implicit.DataPlan, "check_weights", watched(implicit.DataPlan.check_weights, looked))
    x, w = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3))
    out, cache = conv_forward(x, w, None, pad=1, algorithm="implicit")
    dout = rng.standard_normal(out.shape)
    conv_backward(dout, cache)
    assert (looked, redone) == ([], [])
    dout[0, 0, 0, 0] = np.nan
    conv_backward(dout, cache)
    assert (looked, redone) == ([1], [])
    bad = w.copy()
    bad[0, 0, 0, 0] = np.nan
    conv_backward(np.ones_like(out), conv_forward(x, bad, None, pad=1, algorithm="implicit")[1])
    assert (looked, redone) == ([1, 1], [1])


def watched(method, calls):
    def call(*arguments):
        calls.append(1)
        return method(*arguments)

    return call
