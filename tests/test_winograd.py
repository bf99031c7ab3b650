"""Minimal filtering with every number of points: results, the documented bound, and what takes no part."""

import numpy as np
import oracle
import pytest
from cases import CASES
from test_conv import close, registry, skip_unsupported
from test_precision import steps_of

import fastconv
from fastconv import conv, conv_backward, conv_forward


@pytest.fixture(params=[8, 6, 4])
def points(request, monkeypatch):
    """Of Winograd's interpolation: plans of other numbers of them are not looked at."""
    monkeypatch.setattr(registry()["winograd"], "points", (request.param,))
    return request.param


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_winograd_at_any_number_of_points(case, dtype, points, blocks):
    """Which of them is cheapest for a layer is a matter of the machine; all have to be right."""
    skip_unsupported("winograd", case.geometry, dtype)
    x, w, b = case.arrays(dtype)
    table, out_spatial = case.table()
    groups, flip = case.options.get("groups", 1), case.options.get("flip", False)
    out, cache = conv_forward(x, w, b, case.options, algorithm="winograd")
    close(out, oracle.conv(x, w, b, table, out_spatial, groups, flip), dtype, "winograd")
    dout = np.random.default_rng(2).standard_normal(out.shape).astype(dtype)
    for actual, wanted in zip(
        conv_backward(dout, cache), oracle.conv_gradients(x, w, dout, table, groups, flip), strict=True
    ):
        close(actual, wanted, dtype, "winograd")


@pytest.mark.parametrize("draw", ["standard_normal", "random"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((14, 14), (3, 3), 1),
        ((7, 7), (3, 3), 1),
        ((12, 9), (5, 5), 1),
        ((13, 15), (3, 3), 2),
        ((15, 12), (7, 7), 1),
        ((17, 12), (7, 7), 2),
        ((25, 25), (11, 11), 4),
        ((9, 14), (3, 5), 1),
        ((40,), (2,), 1),
        ((40,), (3,), 1),
        ((40,), (5,), 1),
        ((40,), (7,), 1),
    ],
)
def test_winograds_documented_bound(size, kernel, stride, draw, points, rng):
    """5e-5 of the largest value in float32 at 512 channels, 1e-13 in float64; forward and both gradients."""
    x, w = getattr(rng, draw)((2, 512, *size)), getattr(rng, draw)((24, 512, *kernel))
    exact = steps_of(x, w, "im2col", stride)
    for dtype, bound in ((np.float32, 5e-5), (np.float64, 1e-13)):
        found = steps_of(x.astype(dtype), w.astype(dtype), "winograd", stride, exact[0].astype(dtype))
        for actual, wanted in zip(found, exact, strict=True):
            assert np.abs(actual - wanted).max() < bound * np.abs(wanted).max()


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
    """Tiles hold some of them, where strides leave a remainder; they may hold anything."""
    geometry = fastconv.conv_geometry(x, w, **options)
    images, weights = rng.standard_normal(x), rng.standard_normal(w)
    out, cache = conv_forward(images, weights, None, **options, algorithm="reference")
    dout = rng.standard_normal(out.shape)
    dx, dw, _ = conv_backward(dout, cache)
    # A cell is met where it has a gradient, and so is an output by the image.
    met = conv_backward(np.ones_like(out), conv_forward(images, np.ones_like(weights), None, **options)[1])[0] > 0
    seen = conv(np.ones_like(images), np.ones_like(weights), **options) > 0
    assert not (met.all() and seen.all())
    spoilt, spoilt_dout = np.where(met, images, value), np.where(seen, dout, value)
    _, cache = conv_forward(spoilt, weights, None, **options, algorithm="winograd")
    close(conv(spoilt, weights, **options, algorithm="winograd"), out, np.float64, "winograd")
    close(conv_backward(dout, cache, need_dx=False)[1], dw, np.float64, "winograd")
    if registry()["winograd"].unsupported("backward_data", geometry, np.dtype(float)) is None:
        close(conv_backward(spoilt_dout, cache, need_dw=False)[0], dx, np.float64, "winograd")
