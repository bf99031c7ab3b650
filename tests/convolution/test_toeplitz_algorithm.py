"""Convolution by its sparse matrix: the tests of `algorithm="toeplitz"` beyond those of all algorithms."""

import functools
import tracemalloc

import numpy as np
import pytest
from cases import CASES, pruned, registry

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv._ext.buffers import buffers
from fastconv.convolution.plan import Case
from fastconv.runtime import memory as _memory


@pytest.mark.parametrize("case", [case for case in CASES if case.x[0]], ids=lambda case: case.name)
def test_algorithm_with_pruned_weights(case):
    """Zero weights have no entries, which changes no result, and they still have gradients."""
    x, w, b = case.arrays()
    w = pruned(w)
    out, cache = conv_forward(x, w, b, case.options, algorithm="toeplitz")
    expected, reference = conv_forward(x, w, b, case.options, algorithm="reference")
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-11)
    dout = np.random.default_rng(5).standard_normal(out.shape)
    for found, wanted in zip(conv_backward(dout, cache), conv_backward(dout, reference), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11 * max(1, np.abs(wanted).max(initial=0)))


def test_algorithm_takes_no_part_of_zero_weights(rng):
    x, w = rng.standard_normal((2, 2, 5, 6)), rng.standard_normal((3, 2, 2, 2))
    x[0, 1, 2, 2], x[1, 0, 4, 5] = np.nan, np.inf
    w[0, 1] = w[1] = 0
    out, cache = conv_forward(x, w, None, algorithm="toeplitz")
    exact = conv(x, w, algorithm="reference")
    assert np.isfinite(out[0, 0]).all() and not out[:, 1].any()
    assert np.array_equal(np.isnan(out[:, 2]), np.isnan(exact[:, 2]))
    dout = rng.standard_normal(out.shape)
    dout[:, 1] = np.nan
    assert np.isfinite(conv_backward(dout, cache)[0]).all()


def test_long_sums_of_the_algorithm_keep_their_precision(rng):
    x, w = rng.random((3, 400, 12, 13)), rng.random((4, 400, 3, 3))
    dout = rng.random((3, 4, 10, 11))
    found, wanted = [], []
    for dtype, results in ((np.float32, found), (np.float64, wanted)):
        out, cache = conv_forward(
            x.astype(dtype), w.astype(dtype), None, algorithm="toeplitz" if dtype == np.float32 else "im2col"
        )
        results += [out, *conv_backward(dout.astype(dtype), cache)[:2]]
    for actual, exact in zip(found, wanted, strict=True):
        assert np.abs(actual - exact).max() < 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("op", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((8, 16, 20, 20), (24, 16, 3, 3), {"pad": 1}),
        ((3, 12, 15, 15), (12, 1, 3, 3), {"groups": 12}),
        ((5, 3, 30, 30), (8, 3, 5, 5), {"stride": 2}),
        ((2, 8, 40, 40), (64, 8, 3, 3), {"pad": 1}),
    ],
)
def test_workspace_of_the_algorithm(x, w, options, op, rng, monkeypatch):
    """The stated workspace is a bound of the memory that a call takes besides its results."""
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))  # Memory of the pool is not traced.
    entry, geometry = registry()["toeplitz"], fastconv.conv_geometry(x, w, **options)
    arrays = {"x": x, "w": w, "dout": geometry.out_shape}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    result = np.empty_like(arrays[{"forward": "dout", "backward_data": "x", "backward_weights": "w"}[op]])
    first, second = {"forward": "xw", "backward_data": ("dout", "w"), "backward_weights": ("x", "dout")}[op]
    plan = entry.plan(Case.of(op, geometry, result.dtype, 1))
    call = functools.partial(plan.run, arrays[first], arrays[second], None, result)
    call()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = entry.plan(Case.of(op, geometry, result.dtype, 1)).workspace_bytes
    assert peak < 1.1 * said + 100_000 and said < 3 * peak + 17_000_000


def test_auto_leaves_the_algorithm_alone():
    algorithms = fastconv.convolution.choose
    for case in CASES:
        if all(case.x):
            for op in algorithms.OPS:
                assert algorithms.choose(Case.of(op, case.geometry, np.dtype(np.float32), 2)).algorithm != "toeplitz"


def test_nan_weights_show_where_they_meet_padding():
    x, w = np.ones((1, 1, 3)), np.array([[[np.nan, 1.0, 1.0]]])
    out = fastconv.conv(x, w, pad=1, algorithm="toeplitz")
    np.testing.assert_array_equal(out, fastconv.conv(x, w, pad=1, algorithm="reference"))
    assert np.isnan(out).all()
