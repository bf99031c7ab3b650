"""Minimal filtering with every number of points: results, the documented error bound, and cells that take no part."""

import numpy as np
import pytest
from cases import close, in_case, registry, supported
from test_precision import steps_of

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv.convolution.plan import Case
from fastconv.convolution.winograd import decomposition as _minimal


@pytest.fixture(params=[8, 6, 4])
def points(request, monkeypatch, forget):
    """The number of interpolation points; plans with other numbers are not considered, nor those of earlier tests."""
    monkeypatch.setattr(registry()["winograd"], "points", (request.param,))
    forget()
    return request.param


@supported(["winograd"])
def test_winograd_at_any_number_of_points(algorithm, case, points, blocks):
    """The cheapest number of points depends on the machine, but all numbers have to give right results."""
    for dtype in (np.float32, np.float64):
        with in_case(dtype):
            x, w, b = case.arrays(dtype)
            out, cache = conv_forward(x, w, b, case.options, algorithm=algorithm)
            results = out, *conv_backward(case.gradient(dtype), cache)
            for actual, wanted in zip(results, case.expected(dtype), strict=True):
                close(actual, wanted, dtype, algorithm)


#: Error bounds by number of points for sums over 64 channels or more, in eps times the largest |x| times the sum of
#: |w|.
BOUND = {4: 8, 6: 8, 8: 32}


def test_amplification_is_that_of_the_points():
    """The points determine a transform up to factors, which cancel in the product of |A^T|, |G| and rows of |B^T|."""
    for points, pairs in {4: [1], 6: [0.75, 1.5], 8: [0.5, 1, 2]}.items():
        finite = np.array([0.0, *pairs, *(-p for p in pairs)])

        def powers(n, finite=finite):  # The result is (n, points), and the last point is infinity.
            return np.column_stack([np.vander(finite, n, increasing=True).T, np.eye(n)[-1]])

        for taps in range(2, points):
            outputs = points - taps + 1
            of_y, of_g = powers(outputs), powers(taps)
            # y[k] = sum over t of g[t] * d[k + t]
            pairs_of = (of_y[:, None] * of_g[None]).reshape(-1, points)
            met = np.array([np.eye(points)[k + t] for k in range(outputs) for t in range(taps)])
            of_d, *_ = np.linalg.lstsq(pairs_of, met, rcond=None)
            assert np.allclose(pairs_of @ of_d, met)
            most = (np.abs(pairs_of) @ np.abs(of_d).sum(axis=1)).max()
            assert 0.99 * _minimal.AMPLIFICATION[points] < most < 1.01 * _minimal.AMPLIFICATION[points]


def errors_in_eps(x, w, dout, stride=1):
    """The largest errors of out, dx and dw, in eps times the largest factor times the sum of the other factors."""
    exact = steps_of(x.astype(np.float64), w.astype(np.float64), "implicit", stride, dout.astype(np.float64))
    found = steps_of(x, w, "winograd", stride, dout)
    spatial = tuple(range(2, w.ndim))
    of_filters, of_channels, of_dout = (
        np.abs(a.astype(np.float64)).sum(axis=(axis, *spatial)) for a, axis in ((w, 1), (w, 0), (dout, 0))
    )
    over = [of_filters.reshape(-1, *(1,) * len(spatial)), of_channels.reshape(-1, *(1,) * len(spatial))]
    over.append(of_dout.reshape(-1, 1, *(1,) * len(spatial)))
    most = np.abs(x).max(), np.abs(dout).max(), np.abs(x).max()
    return [
        float((np.abs(actual - wanted) / (m * total)).max() / np.finfo(x.dtype).eps)
        for actual, wanted, m, total in zip(found, exact, most, over, strict=True)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "channels"),
    [
        ((14, 14), (3, 3), 1, 64),
        ((7, 7), (3, 3), 1, 512),
        ((12, 9), (5, 5), 1, 64),
        ((13, 15), (3, 3), 2, 64),
        ((17, 12), (7, 7), 2, 64),
        ((21, 17), (11, 11), 4, 64),
        ((9, 14), (3, 5), 1, 64),
        ((40,), (3,), 1, 64),
        ((40,), (7,), 1, 64),
    ],
)
def test_winograds_documented_bound(size, kernel, stride, channels, dtype, points, rng):
    """The bound is relative to the cells that a tile reads, also if the taps sum to zero on an image far from 0."""
    w = rng.standard_normal((8, channels, *kernel))
    flat = w - w.mean(axis=tuple(range(2, w.ndim)), keepdims=True)
    x = rng.standard_normal((1, channels, *size))
    dout = rng.standard_normal((1, 8, *((n - 1) // stride + 1 for n in size)))
    for offset in (0, 100, 1000, 10000):
        arrays = x + offset, flat if offset else w, dout + offset
        assert max(errors_in_eps(*(a.astype(dtype) for a in arrays), stride)) < BOUND[points]


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (3,)])
def test_the_bound_of_single_products(kernel, points, rng):
    """One channel and one tile come near the amplification of the points; a search by mutation finds the worst case."""
    most = _minimal.AMPLIFICATION[points] ** len(kernel)
    x = rng.choice([-1.0, 1.0], (32, 1, *(points,) * len(kernel)))
    w = rng.standard_normal((32, 1, *kernel))
    found = 0.0
    for _ in range(6):
        x, w = x.astype(np.float32), w.astype(np.float32)
        error = np.abs(conv(x, w, algorithm="winograd") - conv(x.astype(float), w.astype(float), algorithm="reference"))
        spatial = tuple(range(2, x.ndim))
        of_w = np.abs(w.astype(float)).sum(axis=(1, *spatial)).reshape(-1, *(1,) * len(spatial))
        error = (error / np.abs(x).max(axis=(1, *spatial), keepdims=True) / of_w).max(axis=spatial) / 2**-23
        found = max(found, error.max())
        x, w = x[np.argsort(-error.max(axis=1))[:8]], w[np.argsort(-error.max(axis=0))[:8]]
        x = np.concatenate([x, *(np.where(rng.random(x.shape) < 0.1, -x, x) for _ in range(3))])
        w = np.concatenate([w, *(w + 0.2 * rng.standard_normal(w.shape) for _ in range(3))])
    assert 0.02 * most < found < most


@pytest.mark.parametrize("channels", [16, 64, 192])
def test_the_bound_of_channels_that_repeat_each_other(channels, points, rng):
    """The errors of channels with equal content add up instead of cancelling; long sums add their own."""
    found = 0.0
    for kernel in ((3, 3), (2, 2), (5, 5)):
        signs = rng.choice([-1.0, 1.0], (40, 1)) * rng.choice([-1.0, 1.0], (1, 40))
        for image in (signs, rng.uniform(-1, 1, (40, 40))):
            x, w = image[None, None].astype(np.float32), rng.standard_normal((24, 1, *kernel)).astype(np.float32)
            wanted = channels * conv(x.astype(float), w.astype(float), algorithm="reference")
            actual = conv(np.repeat(x, channels, 1), np.repeat(w, channels, 1), algorithm="winograd")
            of_w = channels * np.abs(w.astype(float)).sum(axis=(1, 2, 3))
            error = np.abs(actual - wanted).max(axis=(0, 2, 3)) / np.abs(x).max() / of_w / 2**-23
            found = max(found, error.max())
    single = _minimal.AMPLIFICATION[points] ** 2
    assert found < min(4.0, 1 + (min(channels, 60) + channels / 100) / 2) * single


def test_a_fill_value_spoils_its_own_tiles_only(points, rng):
    """Windows near a fill value share its tile and have its error; windows `points` cells away do not."""
    x, w = rng.standard_normal((1, 64, 48, 40)), rng.standard_normal((8, 64, 3, 3)) / 24
    x[..., 20, 20] = 1e20
    x, w = x.astype(np.float32), w.astype(np.float32)
    wanted = conv(x.astype(float), w.astype(float), pad=1, algorithm="exact")
    error = np.abs(conv(x, w, pad=1, algorithm="winograd") - wanted)
    of_w = np.abs(w).sum(axis=(1, 2, 3))[:, None, None]
    assert (error < BOUND[points] * 2**-23 * 1e20 * of_w).all()
    error[:, :, 20 - points : 21 + points, 20 - points : 21 + points] = 0
    assert (error < BOUND[points] * 2**-23 * 6 * of_w).all()
    exact = np.abs(conv(x, w, pad=1, algorithm="exact") - wanted)
    exact[:, :, 19:22, 19:22] = 0
    assert (exact < 1e-6 * 6 * of_w).all()


@pytest.mark.parametrize("draw", ["ones", "uniform"])
def test_gradients_that_are_long_sums(draw, points, rng):
    """Each weight has 16,384 products.

    With eight points errors are 1.3e-5 of the largest dw, but 1e-7 of what is summed.
    """
    x, w = rng.uniform(-2, 2, (4, 16, 64, 64)), rng.uniform(-2, 2, (32, 16, 5, 2))
    x, w = x.astype(np.float32), w.astype(np.float32)
    out, cache = conv_forward(x, w, None, pad=1, algorithm="winograd")
    dout = np.ones_like(out) if draw == "ones" else rng.uniform(-2, 2, out.shape).astype(np.float32)
    wide = conv_forward(x.astype(float), w.astype(float), None, pad=1, algorithm="im2col")[1]
    wanted = conv_backward(dout.astype(float), wide, need_dx=False)[1]
    error = np.abs(conv_backward(dout, cache, need_dx=False)[1] - wanted).max()
    assert error < 4 * 2**-23 * 2 * np.abs(dout).sum(axis=(0, 2, 3)).max()
    assert error < {4: 2e-6, 6: 5e-6, 8: 3e-5}[points] * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("of_x", "of_w"), [(1e-18, 1e-19), (1e-36, 1), (1, 1e-36), (1e-30, 1e-7), (1e30, 1e-36), (1e-36, 1e30)]
)
def test_numbers_near_the_smallest(of_x, of_w, points, rng):
    """The bound holds while the largest |x|, the largest |w| and their product are normal numbers."""
    x, w = of_x * rng.uniform(-1, 1, (2, 64, 13, 12)), of_w * rng.uniform(-1, 1, (8, 64, 3, 3))
    x, w = x.astype(np.float32), w.astype(np.float32)
    out, wanted = (
        conv(*a, pad=1, algorithm=n) for a, n in (((x, w), "winograd"), ((x.astype(float), w.astype(float)), "exact"))
    )
    bound = np.abs(x).max().astype(float) * np.abs(w.astype(float)).sum(axis=(1, 2, 3)).max()
    assert np.abs(out - wanted).max() < BOUND[points] * 2**-23 * bound


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((3, 5, 12, 16), (9, 5, 3, 3), {"stride": 2}),
        ((1, 5, 23, 20), (9, 5, 7, 7), {"stride": (4, 3)}),
        ((2, 3, 21), (7, 3, 5), {"stride": 3, "pad": [(0, 1)]}),
        ((2, 3, 9, 30), (7, 3, 3, 3), {"stride": (2, 10**9)}),
        ((2, 3, 8, 9, 12), (7, 3, 3, 3, 3), {"stride": 2}),
        ((1, 4, 5, 6), (5, 4, 4, 4), {"stride": 2, "pad": [(5, 5), (6, 4)]}),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_cells_that_no_output_meets_take_no_part(x, w, options, value, points, rng):
    """If a stride leaves a remainder, tiles include cells that no output reads; these may hold any value."""
    geometry = fastconv.conv_geometry(x, w, **options)
    images, weights = rng.standard_normal(x), rng.standard_normal(w)
    out, cache = conv_forward(images, weights, None, **options, algorithm="reference")
    dout = rng.standard_normal(out.shape)
    dx, dw, _ = conv_backward(dout, cache)
    # A cell is read by some output if its gradient is not zero; an output reads the image if it is not zero for ones.
    met = conv_backward(np.ones_like(out), conv_forward(images, np.ones_like(weights), None, **options)[1])[0] > 0
    seen = conv(np.ones_like(images), np.ones_like(weights), **options) > 0
    assert not (met.all() and seen.all())
    spoilt, spoilt_dout = np.where(met, images, value), np.where(seen, dout, value)
    _, cache = conv_forward(spoilt, weights, None, **options, algorithm="winograd")
    close(conv(spoilt, weights, **options, algorithm="winograd"), out, np.float64, "winograd")
    close(conv_backward(dout, cache, need_dx=False)[1], dw, np.float64, "winograd")
    if registry()["winograd"].unsupported(Case.of("backward_data", geometry, np.dtype(float))) is None:
        close(conv_backward(spoilt_dout, cache, need_dw=False)[0], dx, np.float64, "winograd")
