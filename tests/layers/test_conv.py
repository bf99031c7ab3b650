"""Convolution: every algorithm, op and dtype over the table of cases, against loops that share no code with it."""

import itertools
import math

import numpy as np
import pytest
from cases import (
    BY_NAME,
    CASES,
    OPS,
    TRANSFORMS,
    Case,
    close,
    in_case,
    pairs,
    plan_of,
    reason,
    registry,
    supported,
    variants,
)

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv.convolution.cost import pricing, rates as _rates
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.plan import Case as PlanCase

EXACT = [name for name in fastconv.algorithms() if name not in TRANSFORMS]


#: The algorithms that `test_every_instruction_set` compares with loops, with blocks of the usual sizes.
BY_VECTORS = ["implicit", "winograd", "depthwise", "separable", "toeplitz"]
PAIRS = pairs([*fastconv.algorithms(), "auto"])
SMALL_BLOCKS = [(name, case, "tiny") for name, case in PAIRS if name != "reference"]  # which makes no blocks
USUAL_BLOCKS = [(name, case, "as they are") for name, case in PAIRS if name not in BY_VECTORS or not case.x[0]]


@pytest.mark.parametrize(
    ("algorithm", "case", "blocks"),
    [*SMALL_BLOCKS, *USUAL_BLOCKS],
    ids=lambda value: getattr(value, "name", value),
    indirect=["blocks"],
)
def test_against_loops(algorithm, case, blocks):
    # Small blocks of matrices in float64 are in `test_algorithm_with_pruned_weights`.
    for dtype in (np.float32,) if (algorithm, blocks) == ("toeplitz", "tiny") else (np.float32, np.float64):
        with in_case(dtype):
            x, w, b = case.arrays(dtype, algorithm=algorithm)
            expected = case.expected(dtype, algorithm)
            out, cache = conv_forward(x, w, b, case.options, algorithm=algorithm)
            assert out.shape == case.geometry.out_shape == expected.out.shape
            close(out, expected.out, dtype, algorithm)
            assert np.array_equal(conv(x, w, b, algorithm=algorithm, **case.options), out)
            for actual, wanted in zip(conv_backward(case.gradient(dtype), cache), expected[1:], strict=True):
                assert actual.shape == wanted.shape
                close(actual, wanted, dtype, algorithm)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_adjoints(case):
    """<conv(x, w), dout> = <x, dx> = <w, dw>, because convolution is linear in x and in w.

    The results of the oracle satisfy this, too, so that no algorithm is compared with wrong gradients.
    """
    x, w, b = case.arrays()
    dout, expected = case.gradient(), case.expected()
    out, cache = conv_forward(x, w, None, case.options)
    dx, dw, db = conv_backward(dout, cache)
    assert db is None
    of_oracle = expected.out - b.reshape(-1, *(1,) * (x.ndim - 2)), *expected[1:3]
    for y, of_x, of_w in ((out, dx, dw), of_oracle):
        inner = np.vdot(y, dout)
        assert np.isclose(np.vdot(x, of_x), inner, atol=1e-9)
        assert np.isclose(np.vdot(w, of_w), inner, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["1d_dilated_strided", "2d_asymmetric", "2d_reflect", "2d_flip_groups", "3d_everything"]
)
def test_central_differences(name):
    case = BY_NAME[name]
    small = Case(name, (1, *case.x[1:]), case.w, case.options)
    x, w, b = small.arrays()
    out, cache = conv_forward(x, w, b, small.options)
    dout = np.random.default_rng(4).standard_normal(out.shape)
    for array, grad in zip((x, w, b), conv_backward(dout, cache), strict=True):
        numeric = fastconv.gradient_check.eval_numerical_gradient_array(
            lambda _: conv(x, w, b, **small.options), array, dout
        )
        assert fastconv.gradient_check.rel_error(numeric, grad) < 1e-6


def test_flip_is_scipys_convolution(rng):
    signal = pytest.importorskip("scipy.signal")
    x, w = rng.standard_normal((6, 7)), rng.standard_normal((3, 4))
    for mode in ("full", "valid"):
        out = conv(x[None, None], w[None, None], pad=mode, flip=True)[0, 0]
        np.testing.assert_allclose(out, signal.convolve2d(x, w, mode), atol=1e-12)
        out = conv(x[None, None], w[None, None], pad=mode)[0, 0]
        np.testing.assert_allclose(out, signal.correlate2d(x, w, mode), atol=1e-12)


def test_5x5_by_hand():
    """A 3x3 edge filter on a 5x5 image, computed on paper: the step from 10 to 0 gives 30."""
    image = np.array([[10, 10, 10, 0, 0]] * 5)[None, None]
    edge = np.array([[1, 0, -1]] * 3)[None, None]
    assert np.array_equal(conv(image, edge)[0, 0], [[0, 30, 30]] * 3)
    assert np.array_equal(conv(image, edge, flip=True)[0, 0], [[0, -30, -30]] * 3)
    assert np.array_equal(conv(image, edge, pad=1, stride=2)[0, 0], [[-20, 20, 0], [-30, 30, 0], [-20, 20, 0]])
    blur = np.ones((1, 1, 3, 3))
    ramp = np.arange(25).reshape(1, 1, 5, 5)
    assert np.array_equal(conv(ramp, blur)[0, 0], [[54, 63, 72], [99, 108, 117], [144, 153, 162]])


def test_cs231n_worked_shape():
    """A 32x32x3 image and ten 5x5 filters with stride 1 and pad 2 give 32x32x10 outputs, with 760 parameters."""
    x, w, b = np.ones((1, 3, 32, 32)), np.ones((10, 3, 5, 5)), np.zeros(10)
    out = conv(x, w, b, pad=2)
    assert out.shape == (1, 10, 32, 32)
    assert w.size + b.size == fastconv.conv_geometry(x.shape, w.shape, pad=2).n_params == 760
    assert out[0, 0, 16, 16] == 75 and out[0, 0, 0, 0] == 27


def test_stride_is_stride_1_downsampled(rng):
    x, w = rng.standard_normal((2, 3, 11, 10)), rng.standard_normal((4, 3, 3, 3))
    np.testing.assert_allclose(conv(x, w, stride=(2, 3)), conv(x, w)[:, :, ::2, ::3], atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_outputs_that_all_lie_in_the_padding(rank):
    """No tap reads the single cell, because the outputs at stride 2 are at -1 and 1."""
    out, cache = conv_forward(np.ones((1, 1, *(1,) * rank)), np.ones((1, 1, *(1,) * rank)), [3.0], stride=2, pad=1)
    assert out.shape[2:] == (2,) * rank and np.all(out == 3)
    dx, dw, db = conv_backward(np.ones_like(out), cache)
    assert np.all(dx == 0) and np.all(dw == 0) and db == [2**rank]


def test_needs(rng):
    out, cache = conv_forward(np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones(1))
    assert [g is None for g in conv_backward(out, cache, need_dx=False)] == [True, False, False]
    assert [g is None for g in conv_backward(out, cache, need_dw=False, need_db=False)] == [False, True, True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_layouts(algorithm, dtype):
    case = BY_NAME["2d_asymmetric" if algorithm in ("reference", "im2col", "implicit") else "1d_depthwise"]
    if algorithm == "winograd":
        case = BY_NAME["1d_k3_wide"]
    if algorithm == "separable":
        case = BY_NAME["2d_depthwise_asymmetric"]
    x, w, b = case.arrays(dtype, algorithm=algorithm)
    out, cache = conv_forward(x, w, b, case.options, algorithm=algorithm)
    gradients = conv_backward(out, cache)
    for name in variants(x):
        other = [variants(a)[name] for a in (x, w, b)]
        before = [np.array(a, copy=True) for a in other]
        again, cache = conv_forward(*other, case.options, algorithm=algorithm)
        assert np.array_equal(again, out), name
        assert again.dtype == dtype and again.dtype.isnative
        for a, g in zip(conv_backward(variants(out)[name], cache), gradients, strict=True):
            assert np.array_equal(a, g), name
        assert all(np.array_equal(a, c) for a, c in zip(other, before, strict=True))


@pytest.mark.parametrize(
    ("x", "w", "b", "expected"),
    [
        ("float32", "float32", "float32", "float32"),
        ("float32", "float64", "float32", "float64"),
        ("float32", "float32", "float64", "float64"),
        ("float16", "float16", None, "float32"),
        ("float16", "float32", None, "float32"),
        ("uint8", "float32", None, "float32"),
        ("uint8", "float16", None, "float32"),
        ("int32", "float32", None, "float64"),
        ("int64", "int8", None, "float64"),
        ("bool", "bool", "bool", "float64"),
        (">f4", "<f4", None, "float32"),
    ],
)
def test_dtypes(x, w, b, expected):
    out, cache = conv_forward(
        np.ones((1, 2, 5), x), np.ones((3, 2, 2), w), None if b is None else np.ones(3, b), {"pad": 1}
    )
    assert out.dtype == expected
    assert out[0, 0, 2] == (1 if (x, b) == ("bool", None) else 4) + (b is not None)
    for gradient in conv_backward(np.ones(out.shape), cache)[:2]:
        assert gradient.dtype == expected


def test_out():
    x, w = np.ones((2, 3, 6, 6), np.float32), np.ones((4, 3, 3, 3), np.float32)
    out = np.full((2, 4, 4, 4), np.nan, np.float32)
    assert conv(x, w, out=out) is out
    assert np.all(out == 27)


@pytest.mark.parametrize("algorithm", EXACT)
def test_nan_and_inf_go_where_the_sum_of_products_sends_them(algorithm):
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 0, 0], x[0, 0, 4, 4] = np.nan, np.inf
    w = np.ones((1, 1, 2, 2))
    with np.errstate(invalid="ignore"):
        out = conv(x, w, algorithm=algorithm)[0, 0]
        zero = conv(x, 0 * w, algorithm=algorithm)[0, 0]
    assert np.isnan(out[0, 0]) and np.isinf(out[3, 3]) and np.isfinite(out).sum() == 14
    if algorithm in ("sparse", "toeplitz"):  # A zero weight takes no part.
        assert np.array_equal(zero, np.zeros((4, 4)))
    else:
        assert np.isnan(zero[0, 0]) and np.isnan(zero[3, 3]) and np.isfinite(zero).sum() == 14


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("algorithm", [name for name in fastconv.algorithms() if name in TRANSFORMS])
def test_transforms_hide_no_nan_or_inf(algorithm, value, dtype, blocks, rng):
    """A NaN or inf may spread over its image; other images, and gradients of other filters, are unchanged."""
    x, w = rng.standard_normal((3, 4, 11, 10)).astype(dtype), rng.standard_normal((4, 2, 3, 3)).astype(dtype)
    options = {"pad": 1, "groups": 2, "algorithm": algorithm}
    out, cache = conv_forward(x, w, None, **options)
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx = conv_backward(dout, cache)[0]
    for at in [(1, 1, 0, 0), (1, 1, 5, 7), (1, 1, 10, 9)]:
        bad_x, bad_dout = x.copy(), dout.copy()
        bad_x[at] = bad_dout[at] = value
        with np.errstate(invalid="ignore"):
            bad, cache = conv_forward(bad_x, w, None, **options)
            exact, exact_cache = conv_forward(bad_x, w, None, **{**options, "algorithm": "reference"})
            for weights in (w, 0 * w):
                found = conv(bad_x, weights, **options)
                wanted = conv(bad_x, weights, **{**options, "algorithm": "reference"})
                assert not np.isfinite(found[~np.isfinite(wanted)]).any()
            _, bad_dw, _ = conv_backward(dout, cache)
            _, exact_dw, _ = conv_backward(dout, exact_cache)
            bad_dx, _, _ = conv_backward(bad_dout, cache, need_dw=False)
            exact_dx, _, _ = conv_backward(bad_dout, exact_cache, need_dw=False)
        for actual, exactly, plain in ((bad, exact, out), (bad_dx, exact_dx, dx)):
            assert not np.isfinite(actual[~np.isfinite(exactly)]).any()
            assert np.array_equal(actual[[0, 2]], plain[[0, 2]])
        assert not np.isfinite(bad_dw[~np.isfinite(exact_dw)]).any()
        assert np.isfinite(bad_dw[2:]).all() and np.isfinite(bad_dw[:, 0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("algorithm", ["implicit", "depthwise"])
def test_no_nan_comes_from_neighbours(algorithm, dtype, blocks, isa, rng):
    """Lanes past the end of a row read the next row or channel, whose values must not affect the result."""
    for size, stride in itertools.product((1, 2, 3, 7, 17, 19), (1, 2, 3)):
        x, w = rng.standard_normal((2, 3, size, size)).astype(dtype), rng.standard_normal((3, 1, 3, 3)).astype(dtype)
        options = {"pad": 1, "groups": 3, "stride": stride}
        x[0, 1], x[1, 0, 0, 0], x[1, 2, -1, -1] = np.nan, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            out, cache = conv_forward(x, w, None, **options, algorithm=algorithm)
            exact, exact_cache = conv_forward(x, w, None, **options, algorithm="reference")
            dout = exact.copy()
            results = [out, *conv_backward(dout, cache)[:2]]
            wanted = [exact, *conv_backward(dout, exact_cache)[:2]]
        for actual, expected in zip(results, wanted, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@supported(BY_VECTORS, [case for case in CASES if case.x[0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_every_instruction_set(algorithm, case, dtype, isas):
    """One thread or two, so that each goes with both dtypes and with every instruction set."""
    x, w, b = case.arrays(dtype, algorithm=algorithm)
    dout, expected = case.gradient(dtype), case.expected(dtype, algorithm)
    for number, isa in enumerate(isas, dtype == np.float64):
        with in_case(isa):
            threads = 1 + number % 2
            out, cache = conv_forward(x, w, b, case.options, algorithm=algorithm, threads=threads)
            gradients = conv_backward(dout, cache)
            for actual, wanted in zip((out, *gradients), expected, strict=True):
                close(actual, wanted, dtype, algorithm)
            assert all(map(np.array_equal, gradients, conv_backward(dout, cache)))
            assert np.array_equal(out, conv(x, w, b, algorithm=algorithm, threads=threads, **case.options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_rows_of_many_vectors(stride, dtype, isa, rng):
    """Whole vectors copy rows and split them into stride phases; the last vector ends at the last cell."""
    for size, kernel in itertools.product((stride * 16 + 1, 4 * 16 * stride - 1, 97, 130), (1, 4)):
        x, w = rng.standard_normal((2, 3, 3, size)).astype(dtype), rng.standard_normal((5, 3, 2, kernel)).astype(dtype)
        options = {"stride": (1, stride), "pad": (1, 2)}
        out, cache = conv_forward(x, w, None, **options, algorithm="implicit")
        exact, exact_cache = conv_forward(x, w, None, **options, algorithm="reference")
        close(out, exact, dtype, "implicit")
        for actual, wanted in zip(conv_backward(exact, cache), conv_backward(exact, exact_cache), strict=True):
            if wanted is not None:
                close(actual, wanted, dtype, "implicit")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_what_an_algorithm_says_of_itself(algorithm, op):
    """An algorithm has a cost if it supports the case, and a reason if it does not."""
    for case in CASES:
        if 0 in case.x:
            continue
        geometry, dtype = case.geometry, np.dtype(np.float32)
        why = registry()[algorithm].unsupported(PlanCase.of(op, geometry, dtype))
        if why is None:
            # The cost is infinite if the kind of CPU whose rates are in use has none for the op.
            measured = op in _rates.in_use().get(algorithm, {})
            plan = plan_of(algorithm, PlanCase.of(op, geometry, dtype, 2))
            assert 0 < pricing.cost(plan) < math.inf or not measured
            assert 0 <= plan.workspace_bytes < 1 << 26
        else:
            assert isinstance(why, str) and why


@pytest.mark.parametrize(
    ("algorithm", "x", "w", "options", "why"),
    [
        (
            "toeplitz",
            (1, 1, 1 << 20),
            (1, 1, 400),
            {},
            "the Toeplitz matrix 1048177 x 1048576 takes [0-9]+ bytes, more than 1073741824",
        ),
        (
            "depthwise",
            (1, 5, 7),
            (3, 5, 3),
            {},
            "at most 4 channels and 8 filters, got groups of 5 channels and 3 filters",
        ),
        (
            "depthwise",
            (1, 4, 7),
            (18, 2, 3),
            {"groups": 2},
            "at most 4 channels and 8 filters, got groups of 2 channels and 9 filters",
        ),
        (
            "winograd",
            (1, 1, 9),
            (1, 1, 3),
            {"stride": 2, "dilation": 2},
            r"the stride is \(2,\) and the dilation \(2,\), but one of them must be 1",
        ),
        (
            "winograd",
            (1, 1, 9),
            (1, 1, 3),
            {"dilation": 2, "pad": 1},
            r"the padding in front of an axis must be a multiple of its dilation: the padding is \(1,\), the dilation \(2,\)",
        ),
        (
            "winograd",
            (1, 1, 9),
            (1, 1, 3),
            {"stride": 3},
            r"the kernel \(3,\) must be longer than the stride \(3,\) along one of the last two axes",
        ),
        ("winograd", (1, 1, 20000), (1, 1, 17000), {}, "the kernel has 17000 taps; at most 16384 are legal"),
        (
            "winograd",
            (1, 9, 20000),
            (1, 9, 16000),
            {},
            "a filter, or a channel in all filters, has 144000 weights; at most",
        ),
        ("separable", (1, 1, 9), (1, 1, 3), {}, "the kernel must have 2 or 3 axes, and it has only one"),
        (
            "separable",
            (1, 4, 9, 9),
            (4, 2, 3, 3),
            {"groups": 2},
            "groups must have one channel, got groups of 2 channels",
        ),
    ],
)
def test_unsupported_cases_name_their_reason(algorithm, x, w, options, why):
    with pytest.raises(ValueError, match=f"algorithm '{algorithm}' cannot do this forward: .*{why}"):
        conv(np.ones(x), np.ones(w), algorithm=algorithm, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_error_of_fft(dtype, rng):
    """The error bound in the docstring of the algorithm, relative to the largest output."""
    bound = {np.float32: 2e-5, np.float64: 1e-13}[dtype]
    for x, w in (
        ((1, 32, 30, 31), (16, 32, 11, 11)),
        ((2, 3, 5000), (4, 3, 301)),
        ((1, 4, 12, 12, 12), (4, 4, 5, 5, 5)),
    ):
        x, w = rng.standard_normal(x), rng.standard_normal(w)
        options = {"pad": 2}
        out, cache = conv_forward(x.astype(dtype), w.astype(dtype), None, options, algorithm="fft")
        x, w = x.astype(dtype).astype(np.float64), w.astype(dtype).astype(np.float64)
        exact, exact_cache = conv_forward(x, w, None, options, algorithm="im2col")
        dout = rng.standard_normal(out.shape).astype(dtype)
        for actual, expected in zip(
            [out, *conv_backward(dout, cache)[:2]], [exact, *conv_backward(dout, exact_cache)[:2]], strict=True
        ):
            assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


def test_algorithms():
    for op in ("forward", "backward_data", "backward_weights"):
        assert set(fastconv.algorithms(op)) >= {"reference", "im2col"}
    with pytest.raises(ValueError, match="op is 'sideways'; legal are 'forward'"):
        fastconv.algorithms("sideways")


def test_auto_takes_the_cheapest():
    choose, dtype = fastconv.convolution.choose.choose, np.dtype(np.float32)
    for x, w in (((1, 3, 8, 8), (4, 3, 3, 3)), ((16, 64, 56, 56), (64, 64, 3, 3)), ((1, 1, 9), (1, 1, 3))):
        for op in ("forward", "backward_data", "backward_weights"):
            geometry = fastconv.conv_geometry(x, w)
            assert choose(PlanCase.of(op, geometry, dtype, 2)).algorithm != "reference"
            for name in fastconv.algorithms():
                if reason(name, geometry, dtype) is not None:
                    continue
                plan = choose(PlanCase.of(op, geometry, dtype, 2), name)
                left = op == "backward_weights" and name in ("sparse", "separable")
                assert (plan.algorithm != name) == left and plan.workspace_bytes >= 0


def test_threads_of_blas_have_to_be_worth_it():
    """BLAS's threads spin after a product on the CPUs of the next call, so its cost counts more than its time."""
    geometry = fastconv.conv_geometry((1, 3, 9, 9), (4, 3, 3, 3))
    assert _rates.blas_penalty() > 1
    for name, entry in registry().items():
        if entry.unsupported(PlanCase.of("forward", geometry, np.dtype(np.float32))) is not None or name == "reference":
            continue
        for threads in (1, 2):
            plan = entry.plan(PlanCase.of("forward", geometry, np.dtype(np.float32), threads))
            times = _rates.blas_penalty() if threads == 2 and name == "im2col" else 1
            case = PlanCase.of("forward", geometry, np.dtype(np.float32), threads)
            times *= _rates.measured().correction.factor(name, case)
            assert pricing.cost(plan) == times * seconds(name, "forward", plan.work)


def test_an_algorithm_that_cannot_says_why(monkeypatch):
    registry = fastconv.convolution.choose.REGISTRY

    class Never(type(registry["im2col"])):
        name = "never"

        def unsupported(self, case):
            return "it never can"

    monkeypatch.setitem(registry, "never", Never())
    with pytest.raises(ValueError, match="algorithm 'never' cannot do this forward: it never can"):
        conv(np.ones((1, 1, 4)), np.ones((1, 1, 2)), algorithm="never")
    assert conv(np.ones((1, 1, 4)), np.ones((1, 1, 2))).shape == (1, 1, 3)


def test_threads_reach_the_kernels(monkeypatch):
    seen = []

    def seeing(call):
        def shared(*args, **options):
            seen.append(options.get("threads", args[-1]))
            return call(*args, **options)

        return shared

    for name in ("share", "work_queue"):
        monkeypatch.setattr(f"fastconv.runtime.threads.{name}", seeing(getattr(fastconv.runtime.threads, name)))
    x, w = np.ones((2, 3, 6, 6)), np.ones((2, 3, 3, 3))
    out, cache = conv_forward(x, w, None, threads=3)
    conv_backward(out, cache)
    assert seen and set(seen) == {3}


def test_a_cache_put_together_wrongly_is_refused():
    out, cache = conv_forward(np.ones((2, 1, 5)), np.ones((1, 1, 2)), None)
    with pytest.raises(ValueError, match=r"cache holds x \(1, 1, 5\)"):
        conv_backward(out, cache._replace(x=np.ones((1, 1, 5))))
    with pytest.raises(ValueError, match=r"cache holds x .* of dtype float32 and w .* of dtype float64"):
        conv_backward(out, cache._replace(x=np.ones((2, 1, 5), np.float32)))
    with pytest.raises(ValueError, match="conv_forward did not put there"):
        conv_backward(out, cache._replace(x=np.ones((5, 1, 2)).T))
    with pytest.raises(TypeError, match="need_dx must be True or False, got 'no'"):
        conv_backward(out, cache, need_dx="no")
