"""Pruned weights: zero weights take no part, whatever values they would multiply; and when 'auto' takes `sparse`."""

import numpy as np
import oracle
import pytest
from cases import BY_NAME, CASES, refused
from conftest import record_sparse

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv.convolution import choose as ALGORITHMS
from fastconv.convolution.plan import OPS, Case

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


#: Layers; some are large enough to fill lanes, tiles and lists many times.
LAYERS = [
    ((1, 24, 30, 41), (20, 24, 3, 3), {"pad": 1}),
    ((17, 9, 14, 14), (13, 9, 3, 3), {"pad": 1, "stride": 2}),
    ((2, 30, 7, 7), (70, 15, 3, 3), {"pad": 1, "groups": 2}),
    ((3, 40, 200), (31, 40, 5), {"dilation": 16}),
    ((1, 6, 9, 20, 23), (7, 6, 3, 3, 3), {"pad": 1}),
    ((2, 3, 65, 67), (18, 3, 7, 7), {"stride": 2, "pad": 3}),
]


def pruned(w, share, seed=5):
    """A copy in which the given share of weights, some filters and some channels are zero."""
    w, rng = w.copy(), np.random.default_rng(seed)
    w[rng.random(w.shape) < share] = 0
    w[::5] = 0
    w[:, ::7] = 0 if w.shape[1] > 1 else w[:, ::7]
    return w


def close(actual, expected, dtype):
    assert actual.dtype == dtype and actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pruned_weights_against_loops(case, dtype, blocks):
    x, w, b = case.arrays(dtype)
    w = pruned(w, 0.6)
    table, out_spatial = case.table()
    out, cache = conv_forward(x, w, b, case.options, algorithm="sparse")
    close(out, oracle.conv(x, w, b, table, out_spatial, **case.shared), dtype)
    dout = case.gradient(dtype)
    dx, dw, db = oracle.conv_gradients(x, w, dout, table, **case.shared)
    for keep, wanted in ((False, dw), (True, np.where(w == 0, 0, dw))):
        gradients = conv_backward(dout, cache, pruned=keep)
        for actual, expected in zip(gradients, (dx, wanted, db), strict=True):
            close(actual, expected, dtype)
        assert not keep or not gradients[1][w == 0].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LAYERS, ids=lambda v: "x".join(map(str, v)))
def test_layers_in_every_instruction_set(x_shape, w_shape, options, dtype, isa, rng):
    x = rng.standard_normal(x_shape).astype(dtype)
    w = pruned(rng.standard_normal(w_shape).astype(dtype), 0.8)
    wanted, exact = conv_forward(x, w, None, options, algorithm="reference")
    dout = rng.standard_normal(wanted.shape).astype(dtype)
    exact_dx, exact_dw, _ = conv_backward(dout, exact)
    for threads in (1, 2, 5):
        out, cache = conv_forward(x, w, None, options, algorithm="sparse", threads=threads)
        close(out, wanted, dtype)
        dx, dw, _ = conv_backward(dout, cache, pruned=True)
        close(dx, exact_dx, dtype)
        close(dw, np.where(w == 0, 0, exact_dw), dtype)
        again, _ = conv_forward(x, w, None, options, algorithm="sparse", threads=threads)
        dx_again, dw_again, _ = conv_backward(dout, cache, pruned=True)
        assert np.array_equal(out, again) and np.array_equal(dx, dx_again) and np.array_equal(dw, dw_again)


@pytest.mark.parametrize("algorithm", [*fastconv.algorithms(), "auto"])
@pytest.mark.parametrize("name", ["2d_k3_wide", "2d_circular_flip", "2d_depthwise_flip", "1d_k3_wide"])
def test_pruned_gradient_in_every_algorithm(algorithm, name):
    """In every algorithm, the pruned dw equals dw without `pruned` where w is not zero, and is 0 elsewhere."""
    case = BY_NAME[name]
    if algorithm != "auto" and any(refused(algorithm, Case.of(op, case.geometry, np.dtype(float))) for op in OPS):
        pytest.skip("unsupported")
    x, w, _ = case.arrays(algorithm=algorithm)
    if algorithm == "separable":
        w[..., 1:, :] = 0  # This leaves outer products.
    else:
        w = pruned(w, 0.5)
    out, cache = conv_forward(x, w, None, case.options, algorithm=algorithm)
    _, dw, _ = conv_backward(out, cache)
    _, kept, _ = conv_backward(out, cache, pruned=True)
    assert dw[w == 0].any() and not kept[w == 0].any()
    np.testing.assert_allclose(kept[w != 0], dw[w != 0], rtol=0, atol=1e-11 * np.abs(dw).max())


def test_pruned_is_true_or_false():
    out, cache = conv_forward(np.ones((1, 1, 4)), np.ones((1, 1, 2)), None)
    with pytest.raises(TypeError, match="pruned must be True or False, got 1"):
        conv_backward(out, cache, pruned=1)


@pytest.mark.parametrize("options", [{"pad": 1}, {}, {"stride": 2}, {"dilation": 2, "pad": (0, 1)}], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_zero_weights_take_no_part(value, options, isa, rng):
    """A NaN or inf reaches exactly the cells to which nonzero weights carry it."""
    x, w = rng.standard_normal((3, 2, 11, 13)), rng.standard_normal((4, 2, 3, 3))
    w[rng.random(w.shape) < 0.7] = 0
    w[0, 0, 1, 1] = -0.0
    dout = rng.standard_normal(conv(x, w, **options).shape)
    ones = (w != 0).astype(float)
    for at in [(1, 1, 0, 0), (1, 0, 5, 6), (2, 1, 10, 12), (0, 0, 10, 0)]:
        bad, mark = x.copy(), np.zeros_like(x)
        bad[at], mark[at] = value, 1
        out, cache = conv_forward(bad, w, None, options, algorithm="sparse")
        assert np.array_equal(np.isfinite(out), conv(mark, ones, algorithm="reference", **options) == 0)
        _, dw, _ = conv_backward(dout, cache, pruned=True)
        # First by the dense gradient, every tap that meets the cell, whatever its weight is; then the nonzero ones
        # only.
        _, met = conv_forward(mark, ones, None, {**options, "algorithm": "reference"})
        _, meets, _ = conv_backward(np.ones_like(dout), met)
        assert np.array_equal(np.isfinite(dw), (meets == 0) | (w == 0))
    _, cache = conv_forward(x, w, None, options, algorithm="sparse")
    _, marked = conv_forward(x, ones, None, options, algorithm="reference")
    for at in np.ndindex(1, 4, *dout.shape[2:]):
        bad, mark = dout.copy(), np.zeros_like(dout)
        bad[at], mark[at] = value, 1
        dx = conv_backward(bad, cache, need_dw=False)[0]
        assert np.array_equal(np.isfinite(dx), conv_backward(mark, marked, need_dw=False)[0] == 0)


def test_weights_that_are_not_numbers_are_not_zero():
    w = np.zeros((2, 3, 3, 3))
    w[1, 2, 1, 1] = np.nan
    out = conv(np.ones((1, 3, 6, 6)), w, [1.0, 2.0], pad=1, algorithm="sparse")
    assert (out[:, 0] == 1).all() and np.isnan(out[:, 1]).all()


def test_no_weights_at_all(rng):
    x, w, b = rng.standard_normal((2, 3, 9, 9)), np.zeros((5, 3, 3, 3)), rng.standard_normal(5)
    out, cache = conv_forward(x, w, b, algorithm="sparse")
    assert np.array_equal(out, np.broadcast_to(b[:, None, None], out.shape))
    dx, dw, _ = conv_backward(out, cache, pruned=True)
    assert not dx.any() and not dw.any()


def test_workspace_is_bounded():
    for x, w, options in [
        ((1, 512, 14, 14), (512, 512, 3, 3), {"pad": 1}),
        ((16, 64, 224, 224), (64, 64, 3, 3), {"pad": 1}),
        ((1, 512, 7, 7), (2048, 512, 1, 1), {}),
        ((1, 2048, 7, 7), (512, 2048, 3, 3), {"pad": 1}),
        ((1, 32, 16000), (32, 32, 3), {"pad": 128, "dilation": 128}),
    ]:
        geometry = fastconv.conv_geometry(x, w, **options)
        for dtype in (np.float32, np.float64):
            for op in OPS:
                nbytes = ALGORITHMS.REGISTRY["sparse"].plan(Case.of(op, geometry, np.dtype(dtype), 2)).workspace_bytes
                assert nbytes <= 1 << 25, (x, w, op, nbytes)


def test_auto_takes_it_for_pruned_weights_only(monkeypatch, rng):
    x, w = rng.standard_normal((1, 64, 56, 56), np.float32), rng.standard_normal((64, 64, 3, 3), np.float32)
    taken = []
    record_sparse(monkeypatch, taken)
    for share, expected in ((0.0, []), (0.99, list(OPS))):
        taken.clear()
        kept = np.where(rng.random(w.shape) < share, 0, w).astype(np.float32)
        out, cache = conv_forward(x, kept, None, pad=1)
        gradients = conv_backward(out, cache, pruned=True)
        assert taken == expected
        close(out, conv(x, kept, pad=1, algorithm="implicit"), np.float32)
        assert not gradients[1][kept == 0].any()


def test_explain_with_density():
    layer = (1, 64, 56, 56), (64, 64, 3, 3)
    assert "it skips zero weights" in fastconv.explain(*layer, pad=1)
    text = fastconv.explain(*layer, pad=1, density=0.02)
    assert "-> sparse, chosen by cost" in text and "2.0% of the weights are not zero" in text
    assert "-> sparse, as requested" in fastconv.explain(*layer, pad=1, algorithm="sparse")
    with pytest.raises(ValueError, match="density must be a finite number >= 0 and <= 1, got 2"):
        fastconv.explain(*layer, density=2)
    with pytest.raises(TypeError, match="density must be a finite number >= 0 and <= 1, got '1'"):
        fastconv.explain(*layer, density="1")


def test_kernels_that_reach_too_far_are_refused_and_not_chosen(rng):
    """The taps are 3000 cells apart, so a block of one output would need gigabytes."""
    x, w = rng.standard_normal((1, 64, 20, 20)), rng.standard_normal((64, 64, 3, 3))
    w[rng.random(w.shape) < 0.95] = 0
    far = {"pad": 3000, "dilation": 3000}
    with pytest.raises(
        ValueError, match=r"algorithm 'sparse' cannot do this forward: the kernel \(3, 3\) with dilation"
    ):
        fastconv.conv(x, w, algorithm="sparse", **far)
    with pytest.raises(ValueError, match=r"the dilation \(3000, 3000\) is larger than the image along some axis"):
        fastconv.conv(x, w, algorithm="winograd", **far)
    # Only the middle tap reads the image.
    np.testing.assert_allclose(fastconv.conv(x, w, **far), fastconv.conv(x, w[:, :, 1:2, 1:2]), atol=1e-10)


def test_outputs_that_all_lie_in_the_padding(rng):
    """The image has one cell, and the outputs are at -1 and 1, so no algorithm has anything to multiply."""
    x, w = rng.standard_normal((600, 64, 1, 1)), np.zeros((64, 64, 1, 1))
    w[0, 0] = 1
    for algorithm in ("auto", "sparse"):
        out, cache = conv_forward(x, w, None, stride=2, pad=1, algorithm=algorithm)
        dx, dw, _ = conv_backward(np.ones_like(out), cache, pruned=True)
        assert out.shape == (600, 64, 2, 2) and not out.any() and not dx.any() and not dw.any()


def test_the_gradient_of_all_weights_is_left_to_the_cheapest_exact_algorithm(rng, monkeypatch):
    """`sparse` does not compute this gradient. `conv_backward` takes the algorithm of 'exact', as `explain` says."""
    x, w = rng.standard_normal((4, 16, 20, 20)), rng.standard_normal((16, 16, 3, 3))
    w[rng.random(w.shape) < 0.8] = 0
    out, cache = conv_forward(x, w, None, pad=1, algorithm="sparse")
    dout, taken = rng.standard_normal(out.shape), []
    record_sparse(monkeypatch, taken)
    dw = conv_backward(dout, cache, need_dx=False)[1]
    assert not taken
    np.testing.assert_array_equal(dw, conv_backward(dout, cache._replace(algorithm="exact"), need_dx=False)[1])
    conv_backward(dout, cache, need_dx=False, pruned=True)
    assert taken == ["backward_weights"]
    layer = {"x_shape": x.shape, "w_shape": w.shape, "op": "backward_weights", "pad": 1, "algorithm": "sparse"}
    exact = ALGORITHMS.choose(
        Case.of("backward_weights", cache.geometry, np.dtype(np.float32), fastconv.get_threads()), "exact"
    )
    text = fastconv.explain(**layer)
    assert (
        f"-> {exact.algorithm}, the cheapest that sums all products" in text
        and "sparse does not compute this op" in text
    )
    assert "-> sparse, as requested" in fastconv.explain(**layer, density=0.1)
