"""Local response normalisation against its definition, and the range of numbers for which it works."""

import math

import numpy as np
import pytest
from cases import in_case
from test_norm import close, dtypes

from fastconv import layers
from fastconv.gradient_check import eval_numerical_gradient_array, rel_error


def response(x, size, alpha, beta, k):
    """LRN as ONNX defines it, by loops."""
    out, C = np.empty(x.shape), x.shape[1]
    for c in range(C):
        window = x[:, max(0, c - (size - 1) // 2) : min(C - 1, c + math.ceil((size - 1) / 2)) + 1].astype(float)
        out[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(axis=1)) ** beta
    return out


@dtypes
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 40])
@pytest.mark.parametrize("shape", [(2, 7, 5, 7), (1, 12, 3), (2, 1, 20), (1, 9, 2, 3, 3)], ids=str)
def test_lrn(shape, size, dtype, isa, rng):
    x, dout = (rng.standard_normal((2, *shape)) * 3).astype(dtype)
    v, h = rng.standard_normal(shape), 1e-5
    for beta in (0.75, 0.5, 1, 0.6):
        with in_case(f"beta = {beta}"):
            param = {"size": size, "alpha": 0.7, "beta": beta, "k": 1.5}
            out, cache = layers.lrn_forward(x, param)
            close(out, response(x, **param), dtype)
            dx = layers.lrn_backward(dout, cache)
            assert dx.dtype == dtype
            # <J v, dout> == <v, dx> for any v, by central differences along v.
            along = (response(x + h * v, **param) - response(x - h * v, **param)) / (2 * h)
            rtol = 1e-4 if dtype == np.float32 else 1e-7
            np.testing.assert_allclose(np.vdot(along, dout), np.vdot(v, dx), rtol=rtol, atol=1e-5)


def test_lrn_gradient_entry_by_entry(rng):
    for size in (2, 3, 5):
        x, dout = rng.standard_normal((2, 2, 6, 2, 3))
        param = {"size": size, "alpha": 2, "beta": 0.75, "k": 0.5}
        numeric = eval_numerical_gradient_array(lambda x, p=param: response(x, **p), x, dout)
        assert rel_error(numeric, layers.lrn_backward(dout, layers.lrn_forward(x, param)[1])) < 1e-6


LRN_SAMPLE = np.array([[[1.0, 3.0], [0.0, 3.0], [0.0, 3.0], [0.0, 3.0]]])


@dtypes
@pytest.mark.parametrize(
    ("param", "message"),
    [
        (
            {"k": 0},
            r"is 0 at x\[0, 2, 0\], .* power of beta = 0.75, because the result or its gradient would divide by 0",
        ),
        ({"k": 0, "alpha": 0}, r"is 0 at x\[0, 0, 0\], .*would divide by 0; use a k above 0"),
        ({"k": -1, "alpha": 3}, r"is 0 at x\[0, 0, 0\], .*would divide by 0"),
        ({"k": -1, "alpha": 3, "beta": 1}, r"is 0 at x\[0, 0, 0\], .* beta = 1, .*would divide by 0"),
        (
            {"k": -2, "alpha": 3, "beta": 0.5},
            r"is -1 at x\[0, 0, 0\], .*beta = 0.5, because a negative number has only int",
        ),
        (
            {"k": -1},
            r"is -0.999967 at x\[0, 0, 0\], .*, because a negative number has only integer powers; use a k above 0",
        ),
        ({"k": 8, "alpha": -3, "beta": 0.6}, r"is -10 at x\[0, 0, 1\], .* use alpha >= 0 and a k above 0"),
        ({"k": 0, "beta": -0.5}, r"is 0 at x\[0, 2, 0\], .*the result or its gradient would divide by 0"),
        (
            {"k": 1e-36, "alpha": 3, "beta": 9},
            r"is 1e-36 at x\[0, 2, 0\], .*beta = 9, because 1 divided by this power is too large for float",
        ),
    ],
    ids=str,
)
def test_lrn_refuses_windows_without_a_power(param, message, dtype, isa):
    with pytest.raises(ValueError, match=r"k \+ alpha / size \* sum\(x\*\*2\) " + message):
        layers.lrn_forward(LRN_SAMPLE.astype(dtype), {"size": 3, **param})


@dtypes
@pytest.mark.parametrize(
    "param",
    [
        {"k": -2, "alpha": 3.5, "beta": 1},
        {"k": -5, "alpha": 9, "beta": 2},
        {"k": -1, "alpha": 9, "beta": 0.75},
        {"k": 40, "alpha": -3, "beta": 0.6},
        {"k": 0.5, "alpha": 1, "beta": -1},
        {"k": 0, "alpha": 1, "beta": 0.5},
        {"k": 0, "alpha": 1, "beta": 0},
    ],
    ids=str,
)
def test_lrn_keeps_windows_that_have_a_power(param, dtype, isa):
    x = LRN_SAMPLE + (0 if param["beta"] in (0, 1, 2) or param["alpha"] < 0 else 1)
    out, cache = layers.lrn_forward(x.astype(dtype), {"size": 3, **param})
    close(out, response(x, 3, **param), dtype)
    dout = np.arange(1.0, 9).reshape(x.shape)
    numeric = eval_numerical_gradient_array(lambda x: response(x, 3, **param), x, dout)
    dx = layers.lrn_backward(dout.astype(dtype), cache)
    np.testing.assert_allclose(dx, numeric, atol=1e-6 + np.finfo(dtype).eps * 100 * np.abs(numeric).max())
    if not param["beta"]:
        assert not np.shares_memory(out, cache.x) and np.array_equal(dx, dout)


def test_lrn_nan_of_the_input_is_no_error(monkeypatch, isa):
    x = LRN_SAMPLE.copy() + 1
    x[0, 3, 0] = np.nan
    for k in (0, 1):
        out, _ = layers.lrn_forward(x, {"size": 3, "k": k})
        assert np.isnan(out).tolist() == [[[False, False], [False, False], [True, False], [True, False]]]
    # With the usual constants no window has to be checked.
    monkeypatch.setattr("fastconv.layers.norm.response._check_powers", None)
    layers.lrn_forward(LRN_SAMPLE, {"size": 3, "k": 1e-4, "alpha": 0, "beta": 8})
    with pytest.raises(TypeError, match="NoneType"):
        layers.lrn_forward(LRN_SAMPLE, {"size": 3, "k": 1e-5})


def test_lrn_defaults_and_large_neighbours(isa):
    """The defaults are those of ONNX; a huge value has no effect on windows that no longer contain it."""
    x = np.full((1, 20, 6), 1e-3, np.float32)
    assert np.allclose(layers.lrn_forward(x, {"size": 3})[0], response(x, 3, 1e-4, 0.75, 1.0), rtol=1e-6)
    x[:, 3] = 1e6
    param = {"size": 3, "alpha": 3, "beta": 0.75, "k": 0}
    np.testing.assert_allclose(layers.lrn_forward(x, param)[0], response(x, **param), rtol=1e-5)


def test_lrn_in_many_blocks(monkeypatch, isa, rng, forget):
    """Rows so narrow that an image is divided into many items, of which the last is narrower."""
    monkeypatch.setattr("fastconv.layers.norm.kernels._WIDEST", 7)
    monkeypatch.setattr("fastconv.layers.norm.kernels._NARROWEST", 7)
    forget()
    x, dout = rng.standard_normal((2, 3, 6, 5, 9))
    param = {"size": 3, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    out, cache = layers.lrn_forward(x, param)
    np.testing.assert_allclose(out, response(x, **param), rtol=1e-12)
    dx = layers.lrn_backward(dout, cache)
    monkeypatch.undo()
    forget()
    np.testing.assert_allclose(dx, layers.lrn_backward(dout, layers.lrn_forward(x, param)[1]), rtol=1e-12)
