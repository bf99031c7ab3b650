"""Kernels that are outer products: their detection, results axis by axis, and when 'auto' takes them."""

import functools
import itertools
import re

import numpy as np
import oracle
import pytest
from cases import CASES, TRANSFORMS, outer_products, read_only
from conftest import forget_geometries

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_transpose
from fastconv._ext.separable import separable as kernels
from fastconv.checks import arrays as _arrays
from fastconv.convolution import choose as ALGORITHMS

SEPARABLE = ALGORITHMS.REGISTRY["separable"]
DTYPES = [np.float32, np.float64]
BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0])


def outer(*factors):
    return functools.reduce(np.multiply.outer, factors)


def gaussian(k, sigma=None):
    sigma = sigma or 0.3 * ((k - 1) * 0.5 - 1) + 0.8
    return np.exp(-((np.arange(k) - (k - 1) / 2) ** 2) / (2 * sigma**2))


def factors_of(w):
    """The factors that the compiled code finds, one array per axis; None if w is no outer product."""
    w = np.ascontiguousarray(w)
    size = (*(1,) * (3 - w.ndim), *w.shape)
    order = np.arange(sum(size))
    to = np.empty(len(order), w.dtype)
    if kernels.factors(w, to, dtype=_arrays.DTYPES[w.dtype], kernel=size, order=order) is not None:
        return None
    return np.split(to, np.cumsum(size)[:-1])


def taken(monkeypatch, call):
    """The names of the algorithms that a call runs."""
    names = []

    def seen(plan):
        def method(self, case):
            found = plan(self, case)
            run = found.run

            def noted(*arrays):
                result = run(*arrays)  # A kernel that is refused leaves no name.
                names.append(self.name)
                return result

            found.run = noted
            return found

        return method

    forget_geometries()  # Geometries keep plans.
    with monkeypatch.context() as patches:
        for kind in map(type, ALGORITHMS.REGISTRY.values()):
            patches.setattr(kind, "plan", seen(kind.plan))
        call()
    forget_geometries()
    return names


# Detection of outer products.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kernel",
    [
        np.ones((3, 3)),
        outer([1, 2, 1], [-1, 0, 1]),
        outer(BINOMIAL, BINOMIAL) / 256,
        outer(BINOMIAL, [0, 3, 0], [5, -7]),
        outer([0, 0, 1], [0, 0, -3]),
        np.zeros((4, 3)),
        np.full((1, 1), 0.3),
        outer([0.3], BINOMIAL),
        outer(BINOMIAL, [0.3]),
    ],
    ids=lambda kernel: "x".join(map(str, kernel.shape)),
)
def test_factors_of_whole_numbers_are_exact(kernel, dtype):
    kernel = kernel.astype(dtype)
    assert np.array_equal(outer(*factors_of(kernel)).reshape(kernel.shape), kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [3, 7, 31, 63, 129, 255])
def test_rounded_outer_products_have_rank_one(k, dtype, rng):
    """Outer products computed in the dtype and divided by their sum, or computed in float64 and rounded at the end."""
    for g in (gaussian(k), gaussian(k, 1.5), rng.standard_normal(k), rng.random(k) + 0.1, np.exp(rng.normal(0, 3, k))):
        g = g.astype(dtype)
        for w in (outer(g, g), outer(g, g[::-1]), (outer(g.astype(float), g) / g.astype(float).sum()).astype(dtype)):
            for kernel in (w, w / w.sum(), 0.7 * (w / w.sum())):
                kernel = kernel.astype(dtype)
                found = factors_of(kernel)
                assert found is not None
                eps, least = np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
                exact = outer(*(a.astype(np.longdouble) for a in found)).reshape(kernel.shape)
                assert (np.abs(exact - kernel) <= 5.5 * eps * np.abs(kernel) + 16.0 * least).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_volumes_have_rank_one(dtype, rng):
    for _ in range(20):
        a, b, c = (rng.standard_normal(k).astype(dtype) for k in (5, 6, 7))
        w = outer(a, b, c)
        assert factors_of(w) is not None and factors_of(w / w.sum()) is not None
        w[2, 3, 4] *= 1.001
        assert factors_of(w) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [outer(BINOMIAL, BINOMIAL), np.ones((3, 3)), outer([1, 2, 1], [-1, 0, 1])])
def test_one_entry_that_is_off(kernel, dtype):
    """One entry is off by 16 units in its last place, by a thousandth, or is no longer zero."""
    kernel = kernel.astype(dtype)
    for at in np.ndindex(kernel.shape):
        near = [kernel[at] + 16 * np.spacing(kernel[at]), kernel[at] * dtype(1.001)] if kernel[at] else [1e-30, -1.0]
        for value in near:
            off = kernel.copy()
            off[at] = value
            assert factors_of(off) is None, (at, value)
    assert factors_of(kernel) is not None


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_count(dtype):
    """A tail of 1e-9 times the middle must be as exact as the middle; otherwise the kernel is refused."""
    g = gaussian(31, 2.2)
    w = outer(g, g).astype(dtype)
    assert 0 < w[0, 0] < 1e-19
    assert factors_of(w) is not None
    w[0, 0] *= dtype(1.0001)
    assert factors_of(w) is None


def gaussians(k, sigma, dtype):
    """Gaussian kernels of k x k: exp of a sum of squares, written in two ways, and products of exponentials."""
    x = (np.arange(k) - k // 2).astype(dtype)
    y, sigma = x[:, None], dtype(sigma)
    yield np.exp(-(x**2 + y**2) / (2 * sigma**2))
    yield np.exp(dtype(-0.5) * ((x / sigma) ** 2 + (y / sigma) ** 2))
    yield np.exp(-(x**2) / (2 * sigma**2)) * np.exp(-(y**2) / (2 * sigma**2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [3, 9, 31, 129])
def test_every_make_of_a_gaussian_has_rank_one(k, dtype):
    """Far out, exp(-(x*x + y*y)) has a few digits less than exp(-x*x) * exp(-y*y). Both are accepted."""
    eps, least = np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
    for sigma in (1.0, 1.5, 3.0, 7.7, 20.0):
        for w in gaussians(k, sigma, dtype):
            for kernel in (w, w / w.sum()):
                assert kernel.dtype == dtype
                found = factors_of(kernel)
                assert found is not None, sigma
                exact = outer(*(a.astype(np.longdouble) for a in found)).reshape(kernel.shape)
                logs = np.log(kernel.max().astype(float)) - np.log(np.maximum(kernel, least).astype(float))
                assert (np.abs(exact - kernel) <= (5.5 + 2 * logs) * eps * np.abs(kernel) + 16.0 * least).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [9, 31])
def test_what_is_nearly_a_gaussian_is_refused(k, dtype, rng):
    """A kernel is refused if one entry is off by far less than the largest entry, or if all entries are noisy."""
    eps = np.finfo(dtype).eps
    for w in gaussians(k, k / 6, dtype):
        for at in ((0, 0), (1, k - 2), (k // 2, 1), (k // 2 + 1, k // 2)):
            off = w.copy()
            off[at] *= 1 + 200 * eps
            assert off[at] != w[at] and factors_of(off) is None, at
        assert factors_of((w * (1 + 100 * eps * rng.standard_normal(w.shape))).astype(dtype)) is None
        assert factors_of((w + 100 * eps * w.max() * rng.standard_normal(w.shape)).astype(dtype)) is None
        assert factors_of(w - dtype(0.5) * w**2) is None  # This is a difference of two Gaussians.


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_of_the_least_numbers_are_as_exact_as_others(dtype):
    """[[1, 2], [3, 5]] is no outer product, however small the unit of its entries is."""
    least = np.finfo(dtype).smallest_subnormal
    for scale in (1, 16, 2**10, 2**18, 2**22):
        unit = dtype(scale) * least
        for w in ([[1, 2], [3, 5]], [[8, 1], [1, 1]], [[1, 2, 3], [2, 4, 7], [3, 6, 9]]):
            assert factors_of(np.array(w, dtype) * unit) is None, (w, scale)
        for w in ([[1, 2], [3, 6]], [[0, 4, 6], [0, 6, 9]]):
            found = factors_of(np.array(w, dtype) * unit)
            assert np.array_equal(outer(*found[1:]), np.array(w, dtype) * unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_numbers_have_no_factors(value, dtype):
    for at in [(0, 0), (1, 1), (2, 1)]:
        w = np.ones((3, 3), dtype)
        w[at] = value
        assert factors_of(w) is None
        with pytest.raises(ValueError, match="the kernel of filter 0 has an inf or NaN"):
            conv(np.ones((1, 1, 5, 5), dtype), w[None, None], algorithm="separable")


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_are_balanced(dtype):
    """For a kernel of 1e30 or 1e-30 both factors have about the same magnitude, and neither overflows or underflows."""
    big = 30 if dtype == np.float32 else 300
    for scale in (1.0, 10.0**big, 10.0**-big):
        w = (outer(BINOMIAL / 6, BINOMIAL / 6) * scale).astype(dtype)
        found = factors_of(w)
        largest = [np.abs(a).max() for a in found[1:]]
        assert 0.2 < largest[0] / largest[1] < 5
        np.testing.assert_allclose(outer(*found[1:]), w, rtol=6 * np.finfo(dtype).eps)
    subnormal = outer([0, 1, 2, 1], [3, 1, 0, 1]).astype(dtype) * np.finfo(dtype).smallest_subnormal
    assert np.array_equal(outer(*factors_of(subnormal)[1:]), subnormal)


def test_what_is_off_is_told(rng):
    w = np.ones((3, 1, 3, 3))
    w[1, 0, 2, 1] = 1.5
    with pytest.raises(
        ValueError,
        match=re.escape(
            "algorithm 'separable' needs kernels of rank one, but the kernel of filter 1 has another rank: its weight "
            "at (0, 0) is 1, and the product of its factors is 0.666666667; the difference is 2.2e-01 of the largest "
            "weight"
        ),
    ):
        conv(rng.standard_normal((1, 3, 9, 9)), w, groups=3, algorithm="separable")


@pytest.mark.parametrize("op", ["forward", "backward", "transposed"])
def test_a_refused_kernel_leaves_no_trace(op, rng):
    x, w = rng.standard_normal((1, 1, 9, 9)), rng.standard_normal((1, 1, 3, 3))
    out = np.full((1, 1, 9, 9), 7.0)
    _, cache = conv_forward(x, np.ones_like(w), None, pad=1, algorithm="separable")
    with pytest.raises(ValueError, match="the kernel of filter 0 has another rank: its weight"):
        if op == "forward":
            conv(x, w, pad=1, out=out, algorithm="separable")
        elif op == "backward":
            conv_backward(x, cache._replace(w=w))
        else:
            conv_transpose(x, w, pad=1, algorithm="separable")
    assert (out == 7).all()


# Values.


@functools.lru_cache(maxsize=2)
def large_layer(shape, dtype, **options):
    """Arrays, and the output and gradients by `implicit` in float64, which the tests of all instruction sets share."""
    rng, k = np.random.default_rng(1), (5, 6) if len(shape) == 2 else (3, 2, 4)
    x = rng.standard_normal((2, 2, *shape)).astype(dtype)
    w = outer_products(rng.standard_normal((4, 1, *k)).astype(dtype))
    b = rng.standard_normal(4).astype(dtype)
    exact, cache = conv_forward(x.astype(float), w.astype(float), b, **options, groups=2, algorithm="implicit")
    dout = rng.standard_normal(exact.shape).astype(dtype)
    return x, w, b, dout, read_only(exact, *conv_backward(dout.astype(float), cache))


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("shape", [(300, 35), (34, 700), (5, 4000), (70, 70), (3, 33, 34), (20, 9, 40)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"pad": 3},
        {"pad": 2, "stride": 2},
        {"pad": "full", "dilation": 2},
        {"pad": 4, "stride": 3, "dilation": 2},
        {"pad": 2, "pad_mode": "reflect"},
        {"pad": 2, "pad_mode": "reflect", "stride": 2, "dilation": 2},
        {"pad": "same", "pad_mode": "circular", "flip": True},
        {"pad": 3, "pad_mode": "circular", "stride": 3},
        {"pad": 9, "pad_mode": "replicate", "dilation": 2},
    ],
    ids=str,
)
def test_many_blocks(shape, options, dtype, isa):
    """Images of many blocks along each axis, all three ops, two filters per channel, one and two threads."""
    x, w, b, dout, wanted = large_layer(shape, dtype, **options)
    bound = 60 * np.finfo(dtype).eps
    for threads in (1, 2):
        out, cache = conv_forward(x, w, b, **options, groups=2, algorithm="separable", threads=threads)
        for actual, expected in zip([out, *conv_backward(dout, cache)], wanted, strict=True):
            assert actual.dtype == dtype
            # A gradient of the weights sums over all positions.
            scale = bound * max(1.0, np.abs(expected).max()) * (1 if actual.ndim == x.ndim and actual.size > 60 else 10)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=scale)


@pytest.mark.parametrize("case", [c for c in CASES if len(c.w) > 3 and c.w[1] == 1 and c.x[0]], ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
def test_whole_numbers_are_exact(case, dtype, isa, blocks, rng):
    """Every sum of small integers is exact, so results equal those of loops to the bit."""
    x = rng.integers(-4, 5, case.x).astype(dtype)
    w = outer_products(rng.integers(-3, 4, case.w).astype(dtype))
    b = rng.integers(-9, 9, case.w[:1]).astype(dtype)
    table, out_spatial = case.table()
    out, cache = conv_forward(x, w, b, case.options, algorithm="separable")
    assert np.array_equal(out, oracle.conv(x, w, b, table, out_spatial, **case.shared))
    dout = rng.integers(-4, 5, out.shape).astype(dtype)
    wanted = oracle.conv_gradients(x, w, dout, table, **case.shared)
    for actual, expected in zip(conv_backward(dout, cache), wanted, strict=True):
        assert np.array_equal(actual, expected)


def test_every_width_and_height(isa):
    """Rows with any number of vectors and remaining lanes, and columns with any remainder after whole tiles."""
    sizes = [*((n, 11) for n in range(1, 20)), *((6, n) for n in range(1, 120))]
    for dtype, size, kernel in itertools.product(DTYPES, sizes, ((3, 3), (1, 4), (7, 1))):
        x, w, exact, exact_dx = whole_numbers(size, kernel)
        x, w = x.astype(dtype), w.astype(dtype)
        out, cache = conv_forward(x, w, None, pad="same", algorithm="separable")
        assert np.array_equal(out, exact), (size, kernel)
        assert np.array_equal(conv_backward(x, cache, need_dw=False)[0], exact_dx), (size, kernel)


@functools.cache
def whole_numbers(size, kernel):
    """x, w, and by `reference` the output and the gradient of x for a gradient x of the output."""
    rng = np.random.default_rng(size)
    x = rng.integers(-4, 5, (1, 1, *size)).astype(float)
    w = outer_products(rng.integers(-3, 4, (1, 1, *kernel)).astype(float))
    exact, cache = conv_forward(x, w, None, pad="same", algorithm="reference")
    return x, w, exact, conv_backward(x, cache)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("k", [(3, 3), (15, 15), (31, 31), (129, 129), (9, 9, 9)], ids=str)
def test_error_bound(k, dtype, isa):
    """The error bound in the docstring of `Separable`, for kernels rounded twice and images of any magnitude."""
    w, images = images_of_any_magnitude(k, dtype)
    for x, exact, scale in images:
        out = conv(x[None, None], w[None, None], pad="same", algorithm="separable")[0, 0]
        bound = (sum(k) + 2 * len(k) ** 2 + 2 * len(k)) * np.finfo(dtype).eps / 2 * scale
        assert (np.abs(out - exact) <= bound + np.finfo(dtype).smallest_normal).all()


@functools.lru_cache(maxsize=2)
def images_of_any_magnitude(k, dtype):
    """A Gaussian, and images with their exact outputs and those of their magnitudes."""
    rng = np.random.default_rng(1)
    shape = (16, 15) if k[0] == 129 else (100, 90) if len(k) == 2 else (20, 21, 22)
    w = outer(*(gaussian(n).astype(dtype) for n in k))
    w = w / w.sum()
    images, wide = [], np.float64 if dtype == np.float32 else np.longdouble
    for x in (
        rng.standard_normal(shape),
        np.exp(rng.normal(0, 5, shape)),
        np.eye(*shape[:2]).reshape(*shape[:2], *(1,) * (len(shape) - 2)) * np.ones(shape),
    ):
        x = x.astype(dtype)
        images.append((x, *(sum_of_products(a.astype(wide), w.astype(wide)) for a in (x, np.abs(x)))))
    return w, images


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("k", [7, 31])
def test_error_bound_of_exponentials_of_sums(k, dtype, rng):
    """In an image of single bright pixels each weight shows separately, also those far from the centre."""
    x = np.zeros((60, 60), dtype)
    x[20, 20], x[59, 3] = 1.0, 1e6
    wide, eps = (np.float64 if dtype == np.float32 else np.longdouble), np.finfo(dtype).eps
    for w in gaussians(k, k / 7, dtype):
        out = conv(x[None, None], w[None, None], pad="same", algorithm="separable")[0, 0]
        exact, scale = (sum_of_products(a.astype(wide), w.astype(wide)) for a in (x, np.abs(x)))
        logs = 4 * np.log(w.max() / w.astype(wide))
        scale = (2 * k + 12) * scale + sum_of_products(x.astype(wide), w.astype(wide) * logs)
        assert (np.abs(out - exact) <= eps / 2 * scale + np.finfo(dtype).smallest_normal).all()


def sum_of_products(x, w):
    """Correlation of x and w with padding 'same'."""
    pads = [(n // 2, n - 1 - n // 2) for n in w.shape]
    padded, total = np.pad(x, pads), np.zeros_like(x)
    # The terms of the separable kernel's own sums in a wider dtype: tap by tap, all positions at once.
    for at in np.ndindex(w.shape):
        total += w[at] * padded[tuple(slice(i, i + n) for i, n in zip(at, x.shape, strict=True))]
    return total


def test_opencv(rng):
    cv2 = pytest.importorskip("cv2")
    x = rng.standard_normal((100, 130)).astype(np.float32)
    for k in (3, 7, 31):
        g = cv2.getGaussianKernel(k, 0).astype(np.float32)
        out = conv(
            x[None, None], outer(g[:, 0], g[:, 0])[None, None], pad=k // 2, pad_mode="reflect", algorithm="separable"
        )
        np.testing.assert_allclose(out[0, 0], cv2.GaussianBlur(x, (k, k), 0), atol=2e-6)


def test_scipy(rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = rng.standard_normal((12, 30, 33))
    g = gaussian(9, 1.0)
    g /= g.sum()
    out = conv(x[None, None], outer(g, g, g)[None, None], pad=4, pad_mode="replicate", algorithm="separable")
    np.testing.assert_allclose(out[0, 0], ndimage.gaussian_filter(x, 1.0, mode="nearest"), atol=1e-13)


def test_transposed(rng):
    x, w, b = (
        rng.standard_normal((2, 3, 9, 8)),
        outer_products(rng.standard_normal((3, 1, 4, 3))),
        rng.standard_normal(3),
    )
    options = {"stride": (2, 1), "pad": 1, "groups": 3}
    np.testing.assert_allclose(
        conv_transpose(x, w, b, **options, algorithm="separable"),
        conv_transpose(x, w, b, **options, algorithm="reference"),
        atol=1e-12,
    )


def test_central_differences(rng):
    """Both gradients are those of the full kernel."""
    x, w, b = (
        rng.standard_normal((1, 2, 7, 6)),
        outer_products(rng.standard_normal((2, 1, 3, 2))),
        rng.standard_normal(2),
    )
    options = {"stride": (2, 1), "pad": (1, 2), "groups": 2}
    out, cache = conv_forward(x, w, b, **options, algorithm="separable")
    dout = rng.standard_normal(out.shape)
    for array, gradient in zip((x, w, b), conv_backward(dout, cache), strict=True):
        numeric = fastconv.gradient_check.eval_numerical_gradient_array(
            lambda _: conv(x, w, b, **options, algorithm="reference"), array, dout
        )
        assert fastconv.gradient_check.rel_error(numeric, gradient) < 1e-6


# Values that are not finite, or overflow between the axes.


@pytest.mark.parametrize("dtype", DTYPES)
def test_overflow_between_the_axes_is_computed_again(dtype, isa, rng, monkeypatch):
    """Sums along the columns overflow although the sums of all products do not; other images keep their bits."""
    x = rng.standard_normal((3, 1, 256, 256)).astype(dtype)
    w = outer(np.ones(31), [1.0, -1.0] * 15)[None, None].astype(dtype)
    options = {"pad": (15, 0)}
    plain = conv(x, w, **options, algorithm="separable")
    x[1] = np.finfo(dtype).max / 4
    forced = conv(x, w, **options, algorithm="separable")
    assert not np.isfinite(forced[1]).any() and np.array_equal(forced[[0, 2]], plain[[0, 2]])
    out = []
    names = taken(monkeypatch, lambda: out.append(conv(x, w, **options)))
    assert names[0] == "separable" and len(names) == 2 and names[1] not in TRANSFORMS
    assert np.array_equal(out[0][1], np.zeros(out[0][1].shape)) and np.array_equal(out[0][[0, 2]], plain[[0, 2]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite(value, isa, rng):
    """Under 'auto' inf and NaN are where the sum of products has them. Other images keep their results."""
    x = rng.standard_normal((3, 2, 200, 211)).astype(np.float32)
    w = np.stack([outer(gaussian(15), gaussian(15)), outer(np.arange(15) - 7, gaussian(15))])[:, None].astype(
        np.float32
    )
    plain, cache = conv_forward(x, w, None, pad=7, groups=2)
    plain_dx = conv_backward(plain, cache)[0]
    dout = plain.copy()
    x[1, 1, 100, 50] = dout[1, 1, 100, 50] = value
    out, cache = conv_forward(x, w, None, pad=7, groups=2)
    exact, exact_cache = conv_forward(x, w, None, pad=7, groups=2, algorithm="exact")
    results = [(out, exact, plain), (conv_backward(dout, cache)[0], conv_backward(dout, exact_cache)[0], plain_dx)]
    for found, wanted, before in results:
        assert np.array_equal(np.isnan(found), np.isnan(wanted)) and np.array_equal(np.isinf(found), np.isinf(wanted))
        assert not np.isfinite(found[1]).all()
        assert np.array_equal(found[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_very_small_numbers(dtype, rng):
    """Subnormal results lose digits, but only as many as rounding to subnormal numbers costs."""
    least = np.finfo(dtype).smallest_subnormal
    for scale in (float(np.finfo(dtype).tiny), float(np.finfo(dtype).tiny) * 2.0**-8):
        x = (rng.standard_normal((1, 1, 40, 40)) * scale).astype(dtype)
        g = gaussian(5) / gaussian(5).sum()
        w = outer(g, g).astype(dtype)[None, None]
        out = conv(x, w, algorithm="separable")
        exact = conv(x.astype(float) * 2.0**60, w.astype(float), algorithm="exact") * 2.0**-60
        assert np.abs(out - exact).max() <= 16 * least + 20 * np.finfo(dtype).eps * np.abs(exact).max()


# The choice.


def test_same_bits_every_time(isa, rng):
    x, w = rng.standard_normal((2, 3, 150, 133)), outer_products(rng.standard_normal((3, 1, 9, 9)))
    for threads in (1, 2):
        results = [conv(x, w, groups=3, algorithm="separable", threads=threads) for _ in range(5)]
        assert all(np.array_equal(results[0], other) for other in results[1:])
