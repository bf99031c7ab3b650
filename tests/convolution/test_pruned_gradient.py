"""dw of pruned weights, which is computed where w is not zero, by the cheaper of two methods."""

import numpy as np
import pytest
from cases import cost_of

import fastconv
from fastconv import conv_backward, conv_forward
from fastconv.convolution import base, wrappers
from fastconv.convolution.choose import choose
from fastconv.convolution.cost import pricing
from fastconv.convolution.implicit_gemm import kernel_call as implicit
from fastconv.convolution.plan import Case
from fastconv.convolution.sparse.plan import SparseWeightGradient
from fastconv.geometry.conv import GEOMETRY_DEFAULTS, resolve_conv
from fastconv.runtime import isa as _isa


@pytest.fixture
def ways(monkeypatch):
    """The method that computed dw ('dots' or 'masked'), and the bytes that were cleared afterwards."""
    seen = []
    dots, contract = SparseWeightGradient.run, implicit.KernelCall.contract
    clear = base.clear_where_zero
    monkeypatch.setattr(SparseWeightGradient, "run", lambda *args: seen.append("dots") or dots(*args))

    def contracted(call, x, dout, weight_mask, dw):
        if weight_mask is not None:
            seen.append("masked")
        contract(call, x, dout, weight_mask, dw)

    monkeypatch.setattr(implicit.KernelCall, "contract", contracted)
    for module in (base, implicit, wrappers):
        monkeypatch.setattr(
            module, "clear_where_zero", lambda w, dw, threads: seen.append(dw.nbytes) or clear(w, dw, threads)
        )
    return seen


def layer(x_shape, w_shape, zeros, rng, dtype=np.float32, **options):
    w = rng.standard_normal(w_shape).astype(dtype)
    w[rng.random(w_shape) < zeros] = 0
    out, cache = conv_forward(rng.standard_normal(x_shape).astype(dtype), w, None, **options)
    return w, rng.standard_normal(out.shape).astype(dtype), cache


@pytest.mark.parametrize("zeros", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "pad"), [((4, 512, 1, 1), (250, 512, 1, 1), 0), ((1, 64, 7, 7), (64, 64, 3, 3), 1)], ids=str
)
def test_few_positions_are_a_dense_product_that_is_masked(x_shape, w_shape, pad, zeros, ways, rng):
    """For these weights, dot products took up to 11 times as long as the dense product, and clearing up to 1.5 times."""
    w, dout, cache = layer(x_shape, w_shape, zeros, rng, pad=pad)
    dw = conv_backward(dout, cache, need_dx=False)[1]
    assert not ways
    pruned = conv_backward(dout, cache, need_dx=False, pruned=True)[1]
    assert ways == ["masked"]
    np.testing.assert_array_equal(pruned, np.where(w == 0, np.float32(0), dw))


def test_dots_where_they_are_clearly_cheaper(ways, rng):
    w, dout, cache = layer((4, 64, 32, 32), (64, 64, 3, 3), 0.995, rng, pad=1)
    dw = conv_backward(dout, cache)[1]
    pruned = conv_backward(dout, cache, pruned=True)[1]
    assert ways == ["dots"]
    assert not pruned[w == 0].any()
    np.testing.assert_allclose(pruned[w != 0], dw[w != 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("isa", _isa.usable(), indirect=True)
def test_dots_are_taken_by_their_cost(isa):
    """Dot products are used if and only if they are expected to take less than half of the dense product's time."""
    dtype = np.dtype(np.float32)
    for x_shape, w_shape in (((8, 64, 56, 56), (64, 64, 3, 3)), ((1, 256, 14, 14), (256, 256, 3, 3))):
        geometry = resolve_conv(x_shape, w_shape, **{**GEOMETRY_DEFAULTS, "pad": 1})
        for density in (0.5, 0.1, 0.05, 0.01, 0.001):
            dense = choose(Case.of("backward_weights", geometry, dtype, 2))
            case = Case.of("backward_weights", geometry, dtype, 2, density, masked=True)
            found = choose(case)
            costs = cost_of("sparse", case), pricing.cost(dense)
            assert found.exploits_sparsity == (costs[0] < fastconv.convolution.choose._CLEARLY * costs[1])
            assert found is dense or found.exploits_sparsity


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, 64, 5000, 40_001])
def test_clearing(size, dtype, isa, rng):
    """dw is cleared whatever it holds. A weight of NaN or inf is not zero; -0.0 is."""
    w, dw = rng.standard_normal((2, size)).astype(dtype)
    w[rng.random(size) < 0.6] = 0
    w[rng.random(size) < 0.1] = -0.0
    w[rng.random(size) < 0.1] = np.nan
    w[rng.random(size) < 0.1] = np.inf
    dw[rng.random(size) < 0.2] = np.nan
    dw[rng.random(size) < 0.2] = np.inf
    wanted = dw.copy()
    wanted[w == 0] = 0
    for threads in (1, 3):
        found = dw.copy()
        base.clear_where_zero(w, found, threads)
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("algorithm", ["im2col", "implicit", "winograd", "fft", "reference", "sparse", "toeplitz"])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"pad_mode": "reflect"}, {"flip": True}, {"groups": 2}], ids=str
)
def test_every_algorithm(algorithm, options, rng):
    shape = 4, 4 // options.get("groups", 1), 3, 3
    w, dout, cache = layer((2, 4, 9, 8), shape, 0.7, rng, np.float64, pad=1, algorithm=algorithm, **options)
    dw, pruned = conv_backward(dout, cache)[1], conv_backward(dout, cache, pruned=True)[1]
    assert np.array_equal(pruned == 0, w == 0)
    np.testing.assert_allclose(pruned, np.where(w == 0, 0, dw), rtol=1e-9, atol=1e-9)


def test_nothing_is_spread_by_a_gradient_that_is_not_finite(rng):
    """A mask must not be multiplied, because zero times infinity would be NaN."""
    w, dout, cache = layer((1, 64, 7, 7), (64, 64, 3, 3), 0.5, rng, pad=1)
    dout[0, 3] = np.inf
    dw = conv_backward(dout, cache, pruned=True)[1]
    assert not dw[w == 0].any()
    assert not np.isfinite(dw[3][w[3] != 0]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((4, 300, 1, 1), (13, 300, 1, 1), {}),  # rows of the result that end within a tile
        ((1, 32, 7, 7), (37, 32, 3, 3), {"pad": 1}),  # listed positions
        ((1, 96, 5, 5), (10, 48, 3, 3), {"groups": 2, "stride": 2, "pad": 1}),
        ((3, 40, 20, 20), (16, 40, 3, 3), {}),  # several blocks of positions, one after the other
        ((1, 70, 50), (8, 70, 3), {"dilation": 2}),
        ((2, 20, 6, 6, 6), (5, 20, 2, 3, 2), {}),
        ((1, 3, 4, 4), (2, 3, 2, 2), {}),
        ((8, 2, 30, 30), (4, 2, 2, 2), {"threads": 2}),  # each thread sums a dw of its own
    ],
    ids=str,
)
def test_masked_gradients_are_the_plain_ones(x_shape, w_shape, options, dtype, isa, ways, rng):
    """The masked gradient equals the plain one to the bit where w is not zero, and is zero elsewhere even if dw is NaN."""
    w, dout, cache = layer(x_shape, w_shape, 0.6, rng, dtype, algorithm="implicit", **options)
    dout[0, 1].flat[0] = np.inf
    w.flat[1], w.flat[-2], w.flat[3] = np.nan, np.inf, -0.0
    dw = conv_backward(dout, cache, need_dx=False)[1]
    pruned = conv_backward(dout, cache, need_dx=False, pruned=True)[1]
    assert not np.isfinite(dw[1]).all()
    assert pruned.tobytes() == np.where(w == 0, dtype(0), dw).tobytes()
    assert ways[0] == "masked" and set(ways[1:]) <= {w.nbytes}


def test_only_a_dw_of_each_thread_is_cleared_after(ways, rng):
    """With one thread the product itself applies the mask, because it sums into dw directly."""
    for threads, wanted in ((1, ["masked"]), (2, ["masked", 128])):
        _, dout, cache = layer((8, 2, 30, 30), (4, 2, 2, 2), 0.5, rng, algorithm="implicit", threads=threads)
        ways.clear()
        conv_backward(dout, cache, need_dx=False, pruned=True)
        assert ways == wanted
