"""The kernels for pooling and for whole planes by vectors, with every instruction set that this CPU has."""

import functools
import itertools

import numpy as np
import oracle
import pytest

from fastconv import (
    avg_pool_backward,
    avg_pool_forward,
    conv_backward,
    conv_forward,
    global_avg_pool_forward,
    global_max_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
)
from fastconv.geometry.pool import resolve_pool
from fastconv.layers import relu_backward, relu_forward
from fastconv.layers.pool import plan as pool_plan
from fastconv.layers.pool.plan import PoolCase
from fastconv.layers.pool.rows import make_rows
from fastconv.runtime import isa as _isa

NAN, INF = np.nan, np.inf
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])

WINDOWS = {
    "2x2_stride_2": {"kernel_size": 2, "stride": 2},
    "2x2_stride_2_ceil": {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    "2x2_stride_2_pad": {"kernel_size": 2, "stride": 2, "pad": 1},
    "3_by_2": {"kernel_size": 3, "stride": 2},
    "3_by_2_pad": {"kernel_size": 3, "stride": 2, "pad": 1},
    "3_by_2_ceil": {"kernel_size": 3, "stride": 2, "pad": [(0, 1), (1, 0)], "ceil_mode": True},
    "3_by_1": {"kernel_size": 3, "stride": 1, "pad": 1},
    "5_by_1": {"kernel_size": (5, 3), "stride": 1, "pad": (2, 1)},
    "1_by_2": {"kernel_size": 1, "stride": 2},
    "dilated": {"kernel_size": 2, "stride": (1, 2), "dilation": (2, 3), "pad": (1, 2)},
    "3_by_3": {"kernel_size": 3, "stride": 3},
    "4_by_5": {"kernel_size": 2, "stride": (4, 5)},
}


@pytest.fixture(params=_isa.usable(), autouse=True)
def isa(request, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.isa.current", _isa.NAMES.index(request.param))


@pytest.fixture(params=[None, 60], ids=["whole", "blocks"], autouse=True)
def cut(request, monkeypatch, forget):
    """Planes as they are, and cut into many blocks, which two threads draw."""
    if request.param:
        monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(block_elements=request.param))
        monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
        forget()


def unaligned(array):
    """A copy that is one element off the usual alignment, and ends exactly at the end of its memory."""
    buffer = np.empty(array.size + 1, array.dtype)
    view = buffer[1:].reshape(array.shape)
    view[...] = array
    return view


def table(shape, options):
    """The geometry, and for each output the input cells of its window."""
    settings = {"stride": None, "pad": 0, "dilation": 1, "ceil_mode": False, **options}
    geometry = resolve_pool(shape, **settings)
    axes = geometry.axes
    over = [(a.lo, a.hi + a.stride + a.extent) for a in axes]
    cells, out = oracle.windows(
        shape[2:], [a.k for a in axes], [a.stride for a in axes], over, [a.dilation for a in axes]
    )
    cells = cells.reshape(*out, -1)[tuple(slice(0, a.out) for a in axes)]
    return geometry, cells.reshape(-1, cells.shape[-1])


def images(shape, dtype, rng):
    """Images with many ties, and with -inf and NaN, alone and in groups."""
    x = rng.integers(-2, 3, shape).astype(dtype)
    x[rng.random(shape) < 0.1] = -INF
    x[:1][rng.random(x[:1].shape) < 0.1] = NAN
    x[-1:, -1:] = np.where(rng.random(x[-1:, -1:].shape) < 0.8, -INF, -1)
    return x


@functools.cache
def maximum_case(name, width, dtype):
    """The values that every instruction set has to find: x, its maxima and their places, dout and dx."""
    rng, shape = np.random.default_rng(width), (3, 2, 7, width)
    geometry, cells = table(shape, WINDOWS[name])
    x = unaligned(images(shape, dtype, rng))
    out, places = oracle.pool(x, cells, geometry.out_shape[2:], "max")
    dout = unaligned(rng.standard_normal(out.shape).astype(dtype))
    dx = np.zeros((6, 7 * width))
    for plane, at, values in zip(dx, places.reshape(6, -1), dout.reshape(6, -1), strict=True):
        np.add.at(plane, at, values)
    return x, out, places, dout, dx.reshape(shape)


@dtypes
@pytest.mark.parametrize("name", WINDOWS)
def test_maximum(name, dtype):
    for width in (7, 16, 47, 66):
        x, expected, places, dout, dx = maximum_case(name, width, dtype)
        out, cache = max_pool_forward(x, WINDOWS[name], threads=2)
        np.testing.assert_array_equal(out, expected, f"width {width}")
        np.testing.assert_array_equal(max_pool_indices(cache), places, f"width {width}")
        np.testing.assert_allclose(max_pool_backward(dout, cache), dx, atol=1e-5, err_msg=f"width {width}")


NAN_WINDOWS = {
    "2x2_stride_2": {"kernel_size": 2, "stride": 2},
    "3_by_2": {"kernel_size": 3, "stride": 2, "pad": 1},
    "3_by_1": {"kernel_size": 3, "stride": 1, "pad": 1},
    "dilated": {"kernel_size": 2, "stride": 1, "dilation": 2},
    "4_by_3": {"kernel_size": 4, "stride": 3},
    "global": {},
}


@functools.cache
def nan_case(name, spatial, dtype):
    """x with few or many NaNs of both signs; its maxima and their places, dout and dx."""
    rng = np.random.default_rng(sum(spatial))
    x = rng.integers(-1, 2, (3, 2, *spatial)).astype(dtype)
    for image, share in zip(x, (0.9, 0.4, 0.05), strict=True):
        image[rng.random(image.shape) < share] = NAN
    x = np.where(rng.random(x.shape) < 0.5, np.copysign(x, -1), x)
    _, cells = table(x.shape, NAN_WINDOWS[name] or {"kernel_size": spatial})
    flat = np.concatenate([x.reshape(6, -1), np.full((6, 1), -INF)], axis=1)
    windows = flat[:, cells]
    nans = np.isnan(windows)
    assert nans.sum(-1).max() > 1
    best = np.where(nans.any(-1), nans.argmax(-1), np.nan_to_num(windows).argmax(-1))
    places = np.take_along_axis(np.broadcast_to(cells, windows.shape), best[..., None], -1)[..., 0]
    dout, dx = rng.integers(1, 9, places.shape).astype(dtype), np.zeros((6, flat.shape[1] - 1))
    np.add.at(dx, (np.arange(6)[:, None], places), dout)
    return unaligned(x), np.take_along_axis(flat, places, 1), places, dout, dx


@dtypes
@pytest.mark.parametrize("spatial", [(47,), (7, 33), (4, 5, 18)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("name", NAN_WINDOWS)
def test_of_several_nans_the_first_wins(name, spatial, dtype):
    x, expected, places, dout, dx = nan_case(name, spatial, dtype)
    out, cache = max_pool_forward(x, NAN_WINDOWS[name]) if NAN_WINDOWS[name] else global_max_pool_forward(x)
    np.testing.assert_array_equal(out.reshape(6, -1), expected)
    np.testing.assert_array_equal(max_pool_indices(cache).reshape(6, -1), places)
    np.testing.assert_array_equal(max_pool_backward(dout.reshape(out.shape), cache).reshape(6, -1), dx)


@dtypes
@pytest.mark.parametrize("size", [9, 30, 44, 70])
def test_gradients_of_planes_side_by_side(size, dtype, rng):
    """As many planes at a time as the cache holds; of the largest size, some planes are alone."""
    x = rng.standard_normal((1, 7, size, size)).astype(dtype)
    out, cache = max_pool_forward(x, kernel_size=3, stride=2, threads=2)
    dout = rng.integers(1, 9, out.shape).astype(dtype)
    expected = np.zeros((7, size * size))
    for plane, at, values in zip(expected, max_pool_indices(cache).reshape(7, -1), dout.reshape(7, -1), strict=True):
        np.add.at(plane, at, values)
    np.testing.assert_array_equal(max_pool_backward(dout, cache).reshape(7, -1), expected)


@functools.cache
def mean_case(name, include, width, dtype):
    """The same as `maximum_case`, for the mean."""
    rng, shape = np.random.default_rng(width), (2, 3, 7, width)
    geometry, cells = table(shape, WINDOWS[name])
    x = unaligned(rng.standard_normal(shape).astype(dtype))
    counts = geometry.window_sizes(True).ravel() if include else np.sum(cells >= 0, axis=1)
    out, _ = oracle.pool(x, cells, geometry.out_shape[2:], "avg", counts)
    dout = unaligned(rng.standard_normal(out.shape).astype(dtype))
    dx = np.zeros((6, 7 * width + 1))
    for plane, values in zip(dx, dout.reshape(6, -1), strict=True):
        np.add.at(plane, cells, (values / counts)[:, None])
    return x, out, dout, dx[:, :-1].reshape(shape)


@dtypes
@pytest.mark.parametrize("include", [True, False], ids=["pad_counts", "pad_ignored"])
@pytest.mark.parametrize("name", WINDOWS)
def test_mean(name, include, dtype):
    for width in (6, 35, 66):
        x, expected, dout, dx = mean_case(name, include, width, dtype)
        out, cache = avg_pool_forward(x, WINDOWS[name], count_include_pad=include, threads=2)
        np.testing.assert_allclose(out, expected, atol=1e-6, err_msg=f"width {width}")
        np.testing.assert_allclose(avg_pool_backward(dout, cache), dx, atol=1e-6, err_msg=f"width {width}")


@dtypes
@pytest.mark.parametrize("spatial", [(40,), (5, 6, 19)])
def test_one_and_three_axes(spatial, dtype, rng):
    shape = (2, 2, *spatial)
    for k, stride, pad in itertools.product((2, 3), (1, 2), (0, 1)):
        options = {"kernel_size": k, "stride": stride, "pad": pad}
        geometry, cells = table(shape, options)
        x = images(shape, dtype, rng)
        expected, places = oracle.pool(x, cells, geometry.out_shape[2:], "max")
        out, cache = max_pool_forward(x, options, threads=2)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(max_pool_indices(cache), places)
        y = rng.standard_normal(shape).astype(dtype)
        out, cache = avg_pool_forward(y, options, threads=2)
        dout = rng.standard_normal(out.shape).astype(dtype)
        assert np.isclose(np.vdot(out, dout), np.vdot(y, avg_pool_backward(dout, cache)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [8, 40])
def test_an_index_of_another_window_is_still_followed(width):
    """Only a manipulated cache holds such an index; the gradient goes to the cell of the plane that it names."""
    out, cache = max_pool_forward(np.arange(8.0 * width).reshape(1, 1, 8, width), kernel_size=2)
    indices = cache.indices.copy()
    indices[0, 0, 1, 1] = 0
    dx = max_pool_backward(np.ones_like(out), cache._replace(indices=indices))
    assert dx[0, 0, 0, 0] == 1 and dx.sum() == out.size
    indices[0, 0, 1, 1] = -1
    with pytest.raises(ValueError, match="outside the planes"):
        max_pool_backward(np.ones_like(out), cache._replace(indices=indices))


def test_what_the_rows_leave_to_others():
    """Windows of many taps, and gradients at strides above 2, have no kernel that works by rows."""

    def rows_of(op, geometry):
        return make_rows(PoolCase(op, geometry, np.dtype(np.float32), 1, _isa.current))

    options = {"pad": 0, "dilation": 1, "ceil_mode": False}
    long = resolve_pool((1, 1, 41, 41), kernel_size=40, stride=1, **options)
    wide = resolve_pool((1, 1, 9, 9), kernel_size=3, stride=3, **options)
    assert rows_of("mean", long) is None
    assert rows_of("mean", wide) is not None
    assert rows_of("mean_gradient", wide) is None


@dtypes
@pytest.mark.parametrize("n", [1, 3, 16, 63, 64, 65, 200, 1000])
def test_whole_planes(n, dtype, rng):
    for trial in range(6):
        x = rng.integers(0, 3, (2, 3, n)).astype(dtype)
        if trial % 2:
            x[0, rng.integers(3), rng.integers(n)] = NAN
            x[1, 1, rng.integers(n) :] = NAN
        out, cache = global_max_pool_forward(unaligned(x))
        np.testing.assert_array_equal(out, x.max(axis=2, keepdims=True))
        np.testing.assert_array_equal(max_pool_indices(cache)[..., 0], x.argmax(axis=2))
    y = rng.standard_normal((2, 3, n)).astype(dtype)
    np.testing.assert_allclose(
        global_avg_pool_forward(y)[0], y.astype(np.float64).mean(axis=2, keepdims=True), rtol=1e-6, atol=1e-7
    )


@dtypes
@pytest.mark.parametrize("n", [1, 7, 16, 33, 5000])
def test_relu(n, dtype, rng):
    x = rng.standard_normal(n).astype(dtype)
    x[::5], x[::7], x[-1:] = 0, NAN, INF
    out, cache = relu_forward(unaligned(x))
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    dout = rng.standard_normal(n).astype(dtype)
    dout[::3] = INF
    np.testing.assert_array_equal(relu_backward(dout, cache), np.where(x > 0, dout, 0))


@dtypes
def test_gradient_of_the_bias(dtype, rng):
    """Sums over several planes are as exact as in float64."""
    dout = (rng.random((5, 3, 61, 67)) + 1).astype(dtype)
    _, cache = conv_forward(np.zeros((5, 1, 61, 67), dtype), np.zeros((3, 1, 1, 1), dtype), np.zeros(3, dtype))
    db = conv_backward(dout, cache, need_dx=False, need_dw=False)[2]
    assert db.dtype == dtype
    np.testing.assert_allclose(db, dout.astype(np.float64).sum(axis=(0, 2, 3)), rtol=2 * np.finfo(dtype).eps)
