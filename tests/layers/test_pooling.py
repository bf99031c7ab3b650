"""Pooling against loops over windows: ties, NaN, overlaps, padding, ceil mode, unpooling."""

import dataclasses

import numpy as np
import oracle
import pytest

from fastconv import (
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    max_unpool,
)
from fastconv.geometry.pool import resolve_pool
from fastconv.layers.pool import plan as pool_plan

CASES = {
    "1d": ((2, 3, 9), {"kernel_size": 2}),
    "1d_overlap_dilated": ((2, 3, 13), {"kernel_size": 3, "stride": 2, "pad": 2, "dilation": 2}),
    "2d": ((2, 3, 8, 8), {"kernel_size": 2}),
    "2d_long_rows": ((1, 2, 5, 70), {"kernel_size": (2, 3), "stride": 1}),
    "2d_long_rows_by_2": ((1, 2, 5, 70), {"kernel_size": 2, "pad": 1}),
    "2d_long_rows_by_3": ((1, 2, 6, 90), {"kernel_size": 3}),
    "2d_overlap": ((2, 3, 7, 9), {"kernel_size": 3, "stride": 2}),
    "2d_pad": ((2, 2, 7, 6), {"kernel_size": (3, 2), "stride": 2, "pad": (2, 1)}),
    "2d_asymmetric": ((2, 2, 7, 6), {"kernel_size": 3, "stride": (1, 2), "pad": [(0, 2), (1, 0)]}),
    "2d_same": ((2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "pad": "same"}),
    "2d_ceil": ((2, 2, 8, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "2d_ceil_pad": ((2, 2, 6, 7), {"kernel_size": 2, "stride": 3, "pad": 1, "ceil_mode": True}),
    "2d_ceil_larger_than_image": ((1, 2, 2, 5), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "2d_stride_over_kernel": ((2, 2, 9, 9), {"kernel_size": 2, "stride": 4}),
    "2d_huge_stride": ((2, 2, 5, 5), {"kernel_size": 2, "stride": 10**30}),
    "3d": ((2, 2, 4, 6, 5), {"kernel_size": 2}),
    "3d_everything": (
        (1, 2, 5, 7, 6),
        {"kernel_size": (2, 3, 2), "stride": (1, 2, 3), "pad": (1, 2, 0), "dilation": (1, 1, 2), "ceil_mode": True},
    ),
    "cs231n_names": ((2, 3, 6, 8), {"pool_height": 2, "pool_width": 4, "stride": 2}),
    "empty_batch": ((0, 3, 8, 8), {"kernel_size": 2}),
}
cases = pytest.mark.parametrize(("shape", "options"), CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def geometry_and_windows(shape, options):
    kernel = options.get("kernel_size") or (options["pool_height"], options["pool_width"])
    geometry = resolve_pool(
        shape,
        kernel_size=kernel,
        stride=options.get("stride"),
        pad=options.get("pad", 0),
        dilation=options.get("dilation", 1),
        ceil_mode=options.get("ceil_mode", False),
    )
    axes = geometry.axes
    # First enough zeros at the end for windows that extend past it, then exactly as many as the outputs need.
    over = [(a.lo, a.hi + a.stride % 1000 + a.extent) for a in axes]
    table, out = oracle.windows(
        shape[2:], [a.k for a in axes], [a.stride for a in axes], over, [a.dilation for a in axes]
    )
    table = table.reshape(*out, -1)[tuple(slice(0, a.out) for a in axes)]
    return geometry, table.reshape(-1, table.shape[-1])


@pytest.fixture(autouse=True)
def threads(blocks):
    return 1 if blocks == "as they are" else 3


@pytest.fixture(params=["vectors", "general"], autouse=True)
def kernels(request, blocks, monkeypatch, forget):
    """The kernels for most windows, and the general kernels for all others."""
    if request.param == "general":
        general = dataclasses.replace(pool_plan.TUNING, most_int32_cells=0, most_taps=0)
        monkeypatch.setattr(pool_plan, "TUNING", general)
        forget()


@dtypes
@cases
def test_max(shape, options, dtype, threads, rng):
    # There are few different values, so ties are common.
    x = rng.integers(0, 4, shape).astype(dtype)
    geometry, table = geometry_and_windows(shape, options)
    expected, indices = oracle.pool(x, table, geometry.out_shape[2:], "max")
    out, cache = max_pool_forward(x, options, threads=threads)
    assert out.dtype == dtype and np.array_equal(out, expected)
    assert max_pool_indices(cache).dtype == np.int64 and np.array_equal(max_pool_indices(cache), indices)

    dout = rng.standard_normal(out.shape).astype(dtype)
    wanted = np.zeros((*shape[:2], int(np.prod(shape[2:]))))
    for n, c in np.ndindex(*shape[:2]):
        np.add.at(wanted[n, c], indices[n, c].ravel(), dout[n, c].ravel())
    dx = max_pool_backward(dout, cache)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, wanted.reshape(shape), atol=1e-5)


@dtypes
@pytest.mark.parametrize("include", [True, False], ids=["pad_counts", "pad_ignored"])
@cases
def test_avg(shape, options, include, dtype, threads, rng):
    x = rng.standard_normal(shape).astype(dtype)
    geometry, table = geometry_and_windows(shape, options)
    counts = geometry.window_sizes(True).ravel() if include else None
    expected, _ = oracle.pool(x, table, geometry.out_shape[2:], "avg", counts)
    out, cache = avg_pool_forward(x, options, count_include_pad=include, threads=threads)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, atol=1e-6)
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx = avg_pool_backward(dout, cache)
    assert dx.dtype == dtype and dx.shape == shape
    # The op is linear: <pool(x), dout> = <x, dx>.
    assert np.isclose(np.vdot(out, dout), np.vdot(x, dx), rtol=1e-4, atol=1e-4)


def test_worked_example():
    x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])[None, None]
    out, cache = max_pool_forward(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    assert np.array_equal(out[0, 0], [[6, 8], [3, 4]])
    assert np.array_equal(max_pool_indices(cache)[0, 0], [[5, 7], [8, 15]])
    assert np.array_equal(avg_pool_forward(x, kernel_size=2)[0][0, 0], [[3.25, 5.25], [2, 2]])


def test_nan_wins_and_the_first_maximum_wins():
    nan, inf = np.nan, np.inf
    for length in (1, 40):  # short rows and long ones
        x = np.tile(np.array([[1, nan, 5, nan], [2, 2, -inf, -inf], [inf, nan, inf, 1]]), (length, 1, 1, 1))
        x = x.transpose(1, 2, 0, 3).reshape(1, 3, 1, 4 * length)
        out, cache = max_pool_forward(x, kernel_size=(1, 4))
        assert np.isnan(out[0, 0]).all() and (out[0, 1] == 2).all() and np.isnan(out[0, 2]).all()
        starts = 4 * np.arange(length)
        for row, first in enumerate((1, 0, 1)):
            assert np.array_equal(max_pool_indices(cache)[0, row, 0], starts + first)
    out, cache = max_pool_forward(np.full((1, 1, 4), -inf), kernel_size=2)
    assert np.all(out == -inf) and np.array_equal(max_pool_indices(cache)[0, 0], [0, 2])


def test_a_cache_that_was_changed_is_refused():
    out, cache = max_pool_forward(np.ones((2, 3, 8, 8)), kernel_size=2)
    with pytest.raises(ValueError, match="read-only"):
        cache.indices[...] = 7
    with pytest.raises(ValueError, match="indices outside the planes"):
        max_pool_backward(out, cache._replace(indices=np.full(out.shape, 10**9, cache.indices.dtype)))
    with pytest.raises(ValueError, match="indices in cache must be C-contiguous"):
        max_pool_backward(out, cache._replace(indices=cache.indices[:1]))


def test_padding_never_wins():
    out, _ = max_pool_forward(-np.ones((1, 1, 3, 3)), kernel_size=3, stride=1, pad=1)
    assert np.all(out == -1)


def test_float32_long_window():
    """The mean of many float32 numbers does not drift."""
    x = np.full((1, 1, 1 << 20), 0.1, np.float32)
    out, cache = global_avg_pool_forward(x)
    assert abs(out.item() - np.float32(0.1)) < 1e-7
    assert np.allclose(global_avg_pool_backward(out, cache), 0.1 / (1 << 20))


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5), (0, 3, 4, 5)])
def test_global(shape, rng):
    x = rng.standard_normal(shape)
    axes, kept = tuple(range(2, len(shape))), (*shape[:2], *(1,) * (len(shape) - 2))
    out, cache = global_max_pool_forward(x)
    assert np.array_equal(out, x.max(axis=axes, keepdims=True) if x.size else np.empty(kept))
    dx = global_max_pool_backward(np.ones(kept), cache)
    assert np.array_equal(dx, (x == out).astype(float))
    out, cache = global_avg_pool_forward(x)
    np.testing.assert_allclose(out, x.mean(axis=axes, keepdims=True) if x.size else np.empty(kept))
    np.testing.assert_allclose(
        global_avg_pool_backward(np.ones(kept), cache), np.full(shape, 1 / max(np.prod(shape[2:]), 1))
    )


def test_unpool_puts_maxima_back(rng):
    x = rng.standard_normal((2, 3, 6, 8))
    out, cache = max_pool_forward(x, kernel_size=2)
    back = max_unpool(out, max_pool_indices(cache), x.shape)
    assert np.array_equal(back, np.where(np.isin(x, out), x, 0))
    assert max_unpool(np.ones((0, 3, 2)), np.ones((0, 3, 2), int), (0, 3, 4)).shape == (0, 3, 4)
    assert max_unpool(np.float32([[[7]]]), np.uint8([[[2]]]), (1, 1, 3)).dtype == np.float32


def test_average_is_convolution_with_a_uniform_kernel(rng):
    from fastconv import conv

    x = rng.standard_normal((2, 3, 7, 8))
    w = np.full((3, 1, 3, 2), 1 / 6)
    np.testing.assert_allclose(
        avg_pool_forward(x, kernel_size=(3, 2), stride=2, pad=1)[0], conv(x, w, groups=3, stride=2, pad=1), atol=1e-12
    )


def test_layouts(rng):
    from cases import variants

    x = rng.standard_normal((2, 3, 7, 6))
    for forward, backward in ((max_pool_forward, max_pool_backward), (avg_pool_forward, avg_pool_backward)):
        out, cache = forward(x, kernel_size=3, stride=2, pad=1)
        dx = backward(out, cache)
        for name, other in variants(x).items():
            again, cache = forward(other, kernel_size=3, stride=2, pad=1)
            assert np.array_equal(again, out), name
            assert np.array_equal(backward(variants(out)[name], cache), dx), name
