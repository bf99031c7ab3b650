"""Transforms under 'auto': results are finite, inf or NaN exactly where the sums of products are."""

import os
import subprocess
import sys

import numpy as np
import oracle
import pytest
from cases import CASES, cost_of, registry, set_cost
from conftest import forget_geometries

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_transpose, conv_transpose_backward, conv_transpose_forward
from fastconv.convolution import choose as algorithms, choose as choosing, wrappers
from fastconv.convolution.cost import pricing
from fastconv.convolution.plan import OPS, Case

LAYERS = [case for case in CASES if all(case.x) and all(case.geometry.out_shape)]
#: For each dtype, a number whose transforms overflow, while its products with weights below 1 do not.
LARGE = {np.float32: 2e38, np.float64: 1e308}


@pytest.fixture(params=["winograd", "fft"])
def transform(request, monkeypatch):
    """Makes 'auto' choose this transform for every layer that it supports, of any size."""
    monkeypatch.setattr(choosing, "_FEW", 0)
    set_cost(monkeypatch, request.param, -1.0)
    forget_geometries()
    yield request.param
    forget_geometries()


@pytest.fixture
def again(monkeypatch):
    """The calls that recomputed images: the op and the images of each."""
    calls = []
    op, run, runs = [], wrappers.Guarded.run, wrappers._runs

    def noted(self, *arrays):
        op[:] = [self.case.op]
        run(self, *arrays)

    def count(counts):
        for images in runs(counts):
            calls.append((*op, images.start, images.stop))
            yield images

    monkeypatch.setattr(wrappers.Guarded, "run", noted)
    monkeypatch.setattr(wrappers, "_runs", count)
    return calls


def same_where_not_finite(actual, expected, scale=1.0):
    """NaN, inf and -inf are in the same places, and the rest is equal up to rounding.

    What float32 cannot hold is inf.
    """
    with np.errstate(over="ignore"):
        expected = expected.astype(actual.dtype)
    for find in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(find(actual), find(expected), find.__name__)
    known = np.isfinite(expected)
    scale = np.abs(expected[known]).max(initial=scale)
    np.testing.assert_allclose(
        actual[known] / scale, expected[known] / scale, rtol=0, atol=3e-5 if actual.dtype == np.float32 else 1e-12
    )


def steps(x, w, b, dout, options, algorithm):
    out, cache = conv_forward(x, w, b, options, algorithm=algorithm)
    return [out, *conv_backward(dout, cache)[:2]]


#: The array, the flat index and the value of an element that is not finite, or whose transform is not.
SPOILT = [("x", 0, np.nan), ("x", -1, LARGE), ("w", 0, np.inf), ("dout", -1, -np.inf), ("dout", 0, LARGE)]


@pytest.mark.parametrize(("transform", "blocks"), [("winograd", "tiny"), ("fft", "as they are")], indirect=True)
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_auto_has_inf_and_nan_where_the_sums_have_them(case, transform, blocks):
    if all(registry()[transform].unsupported(Case.of(op, case.geometry, np.dtype(np.float32))) for op in OPS):
        pytest.skip("unsupported")
    with fastconv.threads(2 if transform == "winograd" else 1):
        for what, at, value in SPOILT if transform == "winograd" else SPOILT[1:4]:
            check_auto(case, what, at, value, np.float32)
        if transform == "winograd":
            check_auto(case, *SPOILT[1], np.float64)


def check_auto(case, what, at, value, dtype):
    x, w, b = case.arrays(dtype)
    dout = case.gradient(dtype)
    arrays = {"x": x, "w": w, "dout": dout}
    for name, array in arrays.items():  # The factors of a large number are below 1.
        array *= 0.1 if name != what else 1
    arrays[what].flat[at] = value[dtype] if value is LARGE else value
    with np.errstate(all="ignore"):
        table, out_spatial = case.table()
        expected = [oracle.conv(x, w, b, table, out_spatial, **case.shared)]
        if what == "w":  # test_nonfinite.py tests how weights affect dx.
            expected += steps(x, w, b, dout, case.options, "exact")[1:]
        else:
            expected += oracle.conv_gradients(x, w, dout, table, **case.shared)[:2]
    with np.errstate(all="warn"):  # No warning is needed, because the definition gives inf, too.
        found = steps(x, w, b, dout, case.options, "auto")
    # Errors of a transform grow with its largest number, and the image is recomputed only if the transform overflows.
    scale = value[dtype] if value is LARGE else 1.0
    for actual, wanted in zip(found, expected, strict=True):
        same_where_not_finite(actual, wanted, scale)


@pytest.mark.parametrize("points", [8, 6, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_transforms_hide_nothing(points, dtype, isa, rng, monkeypatch):
    """A transform selected by name may spread an inf or NaN, or overflow, but every output that reads one shows it."""
    monkeypatch.setattr(registry()["winograd"], "points", (points,))
    w = 0.1 * rng.standard_normal((5, 2, 3, 3)).astype(dtype)
    w[0, :, :, 1:] = 0  # Zero times inf is NaN in the sum, too.
    for at in np.ndindex(7, 7):
        for value in (np.inf, np.nan, LARGE[dtype]):
            x = rng.standard_normal((2, 2, 7, 7)).astype(dtype)
            x[(1, 0, *at)] = value
            with np.errstate(all="ignore"):
                exact = steps(x, w, None, x[:, :1].repeat(5, 1), {"pad": 1}, "reference")
            found = steps(x, w, None, x[:, :1].repeat(5, 1), {"pad": 1}, "winograd")
            for actual, wanted in zip(found, exact, strict=True):
                assert not np.isfinite(actual[~np.isfinite(wanted)]).any()
            assert np.isfinite(found[0][0]).all() and np.isfinite(found[1][0]).all()


def test_large_numbers_times_small_ones(isa, rng):
    """With Winograd's filtering every output was NaN, although the sums reach only 5e7."""
    x = (rng.standard_normal((1, 64, 56, 56)) * 1e37).astype(np.float32)
    w = (rng.standard_normal((64, 64, 3, 3)) / 24 * 1e-30).astype(np.float32)
    assert "-> winograd" in fastconv.explain(x.shape, w.shape, pad=1)
    out, cache = conv_forward(x, w, None, pad=1)
    assert np.isfinite(out).all() and 4e7 < np.abs(out).max() < 7e7
    assert np.array_equal(out, conv(x, w, pad=1, algorithm="exact"))
    # The sums of dw have 3,136 products of about 1e37 times 1e-3; those of dx have 576 of 1e31 times 1e-30.
    _, exact = conv_forward(x, w, None, pad=1, algorithm="exact")
    for scale, need in ((1e31, "need_dx"), (1e-3, "need_dw")):
        dout = (scale * rng.standard_normal(out.shape)).astype(np.float32)
        needs = {"need_dx": False, "need_dw": False, need: True}
        actual, wanted = (conv_backward(dout, c, **needs)["need_dw" in need] for c in (cache, exact))
        assert np.isfinite(wanted).all() and np.abs(actual - wanted).max() < 1e-5 * np.abs(wanted).max()
    x = rng.standard_normal(x.shape).astype(np.float32)
    x[0, 3, 20, 20] = np.inf
    assert np.count_nonzero(~np.isfinite(conv(x, 1e30 * w, pad=1))) == 576
    x[0, 3, 20, 20] = 2e38
    assert np.array_equal(conv(x, 1e30 * w, pad=1), conv(x, 1e30 * w, pad=1, algorithm="exact"))


def test_only_images_that_are_not_finite_are_computed_again(transform, again, rng):
    x, w = rng.standard_normal((7, 3, 9, 8)).astype(np.float32), 0.1 * rng.standard_normal((4, 3, 3, 3), np.float32)
    whole = conv_forward(x, w, None, pad=1)
    fine = [whole[0], *conv_backward(whole[0], whole[1])[:2]]
    assert again == []
    spoilt = x.copy()
    spoilt[[1, 2, 5], 1, 4, 4] = np.inf
    out, cache = conv_forward(spoilt, w, None, pad=1)
    assert again == [("forward", 1, 3), ("forward", 5, 6)]
    assert all(np.array_equal(out[n], fine[0][n]) for n in (0, 3, 4, 6))
    same_where_not_finite(out, conv(spoilt, w, pad=1, algorithm="exact"))
    again.clear()
    dout = np.ones_like(out)
    dout[6, 2, 0, 0] = np.inf
    conv_backward(dout, cache, need_dw=False)
    assert again == [("backward_data", 6, 7)]
    # The choice stays the same: the next call of the layer uses the transform alone.
    again.clear()
    assert np.array_equal(conv(x, w, pad=1), fine[0])
    assert again == []
    assert f"-> {transform}, chosen by cost" in fastconv.explain(x.shape, w.shape, pad=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_what_workspaces_held_is_no_result(dtype, isa, transform, again, rng):
    """Vectors reach past the last filter and channel, where the workspace still holds values of the previous call."""
    for rows, channels in ((9, 5), (1, 3), (17, 2)):
        w = rng.standard_normal((rows, channels, 3, 3)).astype(dtype)
        x = np.full((2, channels, 10, 11), np.nan, dtype)
        out, cache = conv_forward(x, w * np.nan, None, pad=1)
        conv_backward(np.full_like(out, np.nan), cache)
        again.clear()
        x = rng.standard_normal(x.shape).astype(dtype)
        out, cache = conv_forward(x, w, None, pad=1)
        dx, dw, _ = conv_backward(out, cache)
        assert again == []
        assert np.isfinite(out).all() and np.isfinite(dx).all() and np.isfinite(dw).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_whole_gradients_are_computed_again(threads, transform, rng, monkeypatch):
    """Threads and images sum dw in parts; if one part overflows, the whole dw is recomputed."""
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    x, w = rng.standard_normal((6, 3, 9, 8)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    for options in ({"pad": 1}, {"pad": 2, "dilation": 2}, {"pad": 1, "pad_mode": "reflect"}):
        x[2, 1, 4, 4] = 2e38
        out, cache = conv_forward(x, 0 * w, None, **options, threads=threads)
        dout = np.full_like(out, 1e-3)
        _, exact = conv_forward(x, 0 * w, None, **options, threads=threads, algorithm="exact")
        wanted = conv_backward(dout, exact)[1]
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(conv_backward(dout, cache)[1], wanted, rtol=1e-5, atol=1e-7)
        # The same case with pruned=True, which leaves out the gradients of zero weights.
        kept = conv_forward(x, np.where(w > 0, w, 0) * 1e-3, None, **options, threads=threads)[1]
        np.testing.assert_allclose(
            conv_backward(dout, kept, pruned=True)[1], np.where(w > 0, wanted, 0), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("options", [{}, {"stride": 2, "pad": 1}, {"dilation": 2}, {"groups": 2, "output_pad": 0}])
def test_transposed_convolutions(options, transform, rng):
    x = rng.standard_normal((3, 4, 9, 8)).astype(np.float32)
    w, b = 0.1 * rng.standard_normal((4, 6, 3, 3), np.float32), rng.standard_normal(6 * options.get("groups", 1))
    for value in (np.nan, np.inf, 2e38):
        spoilt = x.copy()
        spoilt[1, 2, 4, 4] = value
        b = b.astype(np.float32)
        out, cache = conv_transpose_forward(spoilt, w, b, **options)
        with np.errstate(all="ignore"):
            wanted, exact = conv_transpose_forward(spoilt, w, b, **options, algorithm="reference")
        same_where_not_finite(out, wanted)
        assert np.array_equal(conv_transpose(spoilt, w, b, **options), out, equal_nan=True)
        dout = 0.1 * rng.standard_normal(out.shape, np.float32)
        dout[2, 1, 3, 3] = value
        with np.errstate(all="ignore"):
            gradients = conv_transpose_backward(dout, exact)[:2]
        if value != 2e38:  # Otherwise their product overflows in float32.
            for actual, expected in zip(conv_transpose_backward(dout, cache)[:2], gradients, strict=True):
                same_where_not_finite(actual, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bias_that_is_not_finite(value, transform, rng):
    x, w = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3))
    b = np.array([1.0, value, 2.0, 3.0])
    out = conv(x, w, b, pad=1)
    assert np.array_equal(out[:, 1], np.full_like(out[:, 1], value), equal_nan=True)
    np.testing.assert_allclose(np.delete(out, 1, 1), np.delete(conv(x, w, b, pad=1, algorithm="exact"), 1, 1))


def test_strides_that_are_fractions(transform, rng):
    from fractions import Fraction

    x, w = rng.standard_normal((2, 3, 9, 8)), 0.1 * rng.standard_normal((4, 3, 5, 5))
    x[1, 1, 3, 3] = np.inf
    stride = {"stride": Fraction(2, 3), "pad": 1}
    with np.errstate(all="ignore"):
        wanted = conv(x, w, **stride, algorithm="reference")
    same_where_not_finite(conv(x, w, **stride), wanted)


def exact_choices(geometry, op, dtype=np.float32, threads=2):
    return algorithms.choose(Case.of(op, geometry, np.dtype(dtype), threads, 0.01), "exact")


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_exact_sums_every_product(case):
    for op in OPS:
        chosen = exact_choices(case.geometry, op)
        assert not chosen.uses_transforms and not chosen.exploits_sparsity
        assert chosen.algorithm not in ("sparse", "toeplitz", "winograd", "fft", "separable")


def test_exact_is_the_cheapest_of_them():
    geometry = fastconv.conv_geometry((4, 64, 56, 56), (64, 64, 3, 3), pad=1)
    for op in OPS:
        chosen = exact_choices(geometry, op)
        assert chosen.algorithm == "implicit"
        case = Case.of(op, geometry, np.dtype(np.float32), 2)
        assert pricing.cost(chosen) == min(cost_of(name, case) for name in ("reference", "im2col", "implicit"))


def test_exact_is_a_name_everywhere(rng):
    x, w, b = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    assert not {"exact", "auto"} & set(fastconv.algorithms())
    out, cache = conv_forward(x, w, b, {"algorithm": "exact"})
    assert cache.algorithm == "exact"
    assert np.array_equal(out, conv(x, w, b, algorithm="exact"))
    expected = conv_forward(x, w, b, algorithm="reference")
    for actual, wanted in zip(conv_backward(out, cache), conv_backward(out, expected[1]), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)
    large = conv_transpose(x, w.swapaxes(0, 1), stride=2, algorithm="exact")
    np.testing.assert_allclose(
        large, conv_transpose(x, w.swapaxes(0, 1), stride=2, algorithm="reference"), rtol=1e-10, atol=1e-10
    )
    out, cache = conv_transpose_forward(x, w.swapaxes(0, 1), None, stride=2, algorithm="exact")
    assert np.array_equal(out, large) and conv_transpose_backward(out, cache)[0].shape == x.shape
    operator = fastconv.toeplitz_operator(w, (3, 9, 8), algorithm="exact")
    np.testing.assert_allclose(operator @ x[0].ravel(), conv(x[:1], w).ravel(), rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="algorithm is 'exakt'; legal are 'auto', 'exact', 'reference'"):
        conv(x, w, algorithm="exakt")


def test_zero_weights_take_part_in_exact_and_may_not_in_auto(rng):
    """If 1 % of the weights are not zero, 'auto' takes `sparse`, which skips the products of zero weights with inf."""
    x, w = rng.standard_normal((2, 64, 56, 56), np.float32), rng.standard_normal((64, 64, 3, 3), np.float32)
    w[rng.random(w.shape) < 0.99] = 0
    x[0, 0, 20, 20] = np.inf
    seen = np.zeros((2, 1, 56, 56), bool)
    seen[0, 0, 19:22, 19:22] = True
    assert np.array_equal(~np.isfinite(conv(x, w, pad=1, algorithm="exact")), np.broadcast_to(seen, (2, 64, 56, 56)))
    out = conv(x, w, pad=1)
    assert np.isfinite(out[:, :, ~seen[0, 0]]).all() and np.count_nonzero(~np.isfinite(out)) < 100
    assert "-> sparse" in fastconv.explain(x.shape, w.shape, pad=1, density=0.01)
    assert "-> implicit, the cheapest that sums all products" in fastconv.explain(
        x.shape, w.shape, pad=1, density=0.01, algorithm="exact"
    )


def test_explain_says_what_is_taken():
    layer = (1, 64, 56, 56), (64, 64, 3, 3)
    line = fastconv.explain(*layer, pad=1).splitlines()[-1]
    assert (
        line.startswith("-> winograd, chosen by cost")
        and "images with inf or NaN are computed again by implicit" in line
    )
    line = fastconv.explain(*layer, pad=1, algorithm="exact").splitlines()[-1]
    assert line.startswith("-> implicit, the cheapest that sums all products")
    assert "computed again" not in fastconv.explain(*layer, pad=1, algorithm="winograd")


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )
    return done.stdout, done.stderr


def test_the_default_of_the_environment():
    code = """if True:
        import numpy as np, fastconv
        x, w = np.ones((1, 3, 9), np.float32), np.ones((2, 3, 3), np.float32)
        print(fastconv.conv_forward(x, w, None)[1].algorithm)
        print(fastconv.conv_forward(x, w, None, algorithm="auto")[1].algorithm)
        print(fastconv.conv_transpose_forward(x, np.ones((3, 2, 3), np.float32), None)[1].algorithm)
        print(fastconv.explain((1, 64, 56, 56), (64, 64, 3, 3), pad=1).splitlines()[-1].split(",")[0])
        fastconv.show_config()
    """
    out, errors = run(code, FASTCONV_ALGORITHM="exact")
    assert out.splitlines()[:4] == ["exact", "auto", "exact", "-> implicit"] and "'exact' by default" in out
    assert "FASTCONV_ALGORITHM" not in errors
    out, errors = run(code, FASTCONV_ALGORITHM=" exakt")
    assert out.splitlines()[:4] == ["auto", "auto", "auto", "-> winograd"]
    assert "RuntimeWarning: FASTCONV_ALGORITHM is 'exakt'" in errors and "legal are 'auto', 'exact', 'ref" in errors


def test_sums_over_images_that_are_not_finite_give_no_warning(monkeypatch):
    """Mirrored borders process some images at a time. inf of one and -inf of another add up to NaN, as in the definition."""
    monkeypatch.setattr(fastconv.convolution.wrappers, "_EXTENDED_BYTES", 1)
    x, dout = np.ones((2, 1, 4, 4), np.float32), np.zeros((2, 1, 4, 4), np.float32)
    dout[0, 0, 0, 0], dout[1, 0, 0, 0] = np.inf, -np.inf
    _, cache = conv_forward(x, np.ones((1, 1, 3, 3), np.float32), None, pad=1, pad_mode="circular")
    with np.errstate(all="raise"):
        _, dw, _ = conv_backward(dout, cache, need_dx=False)
    assert np.isnan(dw).all()
