"""Every way in which `implicit` makes tiles, independent of the cost model, and weights that threads share."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from cases import close, read_only
from conftest import forget_geometries

import fastconv
from fastconv import conv_backward, conv_forward, conv_geometry
from fastconv.convolution.blocking import Layout
from fastconv.convolution.implicit_gemm import calls as implicit, tuning
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.implicit_gemm.tuning import Tuning
from fastconv.convolution.plan import Case
from fastconv.convolution.registry import REGISTRY

WAYS = {
    "whole": tuning.CONTIGUOUS,
    "grid": tuning.PADDED_GRID,
    "rows": tuning.ROW_WISE,
    "packed": tuning.PACKED,
    "turned": tuning.SWAPPED,
}

#: x, w and options: rows shorter and longer than tiles, strides, three axes, pointwise layers, and one below a tile.
LAYERS = {
    "2d": ((3, 5, 23, 25), (33, 5, 3, 3), {"pad": 1}),
    "2d_stride": ((2, 7, 23, 40), (30, 7, 5, 3), {"stride": 2, "pad": (2, 1)}),
    "2d_groups": ((5, 6, 9, 7), (52, 3, 2, 3), {"groups": 2, "dilation": (1, 2)}),
    "3d": ((2, 3, 5, 9, 11), (25, 3, 2, 3, 3), {"pad": 1}),
    "1d": ((2, 40, 130), (27, 40, 7), {"pad": 3}),
    "pointwise": ((5, 180, 7, 8), (49, 180, 1, 1), {}),
    "pointwise_large": ((2, 180, 23, 25), (49, 180, 1, 1), {}),
    "2d_apart": ((1, 70, 9, 9), (20, 70, 3, 3), {"stride": 2}),
    "few": ((1, 4, 4, 5), (26, 4, 3, 3), {"pad": 1}),
}


@functools.lru_cache(maxsize=16)
def example(x_shape, w_shape, dtype, **options):
    """The arrays of a layer, and its output and gradients by `im2col` in float64, which tests of one layer share."""
    rng = np.random.default_rng(1)
    arrays = read_only(*(rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1])))
    exact, cache = conv_forward(*(a.astype(np.float64) for a in arrays), options, algorithm="im2col")
    return arrays, read_only(exact, *conv_backward(exact, cache))


def agree(x_shape, w_shape, options, dtype):
    """Check forward and all gradients against `example`."""
    arrays, (exact, *gradients) = example(x_shape, w_shape, dtype, **options)
    out, cache = conv_forward(*arrays, options, algorithm="implicit")
    close(out, exact, dtype)
    for actual, wanted in zip(conv_backward(exact.astype(dtype), cache), gradients, strict=True):
        close(actual, wanted, dtype)
    return out


@pytest.fixture
def fresh():
    """Clears all plans before and after the test."""
    forget_geometries()
    yield
    forget_geometries()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    ("packing", "tiles"), [(False, 3), (True, 1), (True, 16)], ids=["where they lie", "side by side", "many"]
)
@pytest.mark.parametrize(
    ("layer", "way"), [(layer, way) for layer in LAYERS for way in WAYS if way != "whole" or layer == "pointwise_large"]
)
def test_every_way_of_making_tiles(layer, way, packing, tiles, dtype, isa, fresh, made, monkeypatch):
    x_shape, w_shape, options = LAYERS[layer]
    example(x_shape, w_shape, dtype, **options)
    results = made(implicit, "_make_calls")
    rows = 0 if packing else 1 << 30
    tuned = Tuning(modes=(WAYS[way],), most_tiles=tiles, packing_rows=rows, near_bytes=1 << 30)
    if tiles == 3 and way == "turned":  # With filters in the lanes, blocks of k also end between taps.
        tuned = replace(tuned, kc=5, kc_swapped=5)
    monkeypatch.setitem(REGISTRY, "implicit", Implicit(tuned))
    agree(x_shape, w_shape, options, dtype)
    geometry = conv_geometry(x_shape, w_shape, **options)
    results = [(op, found) for (op, its, *_), found in results if its == geometry]  # not those of im2col
    products = [call.tiling for op, found in results if op != "backward_weights" for call in found]
    assert {op for op, _ in results} == {"forward", "backward_data", "backward_weights"}
    assert {tiling.blocking.mode for tiling in products} == {WAYS[way]}
    assert {(tiling.blocking.packing, tiling.tiles) for tiling in products} == {(packing, tiles)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_channels_of_a_block_are_bounded_where_filters_are_in_the_lanes(dtype, isa, fresh):
    """If most of a block is halo, fewer channels fit into it."""
    tuned, dtype = Tuning(modes=(tuning.SWAPPED,)), np.dtype(dtype)
    geometry = conv_geometry((2, 16, 242, 249), (48, 16, 7, 7), stride=3, dilation=40)
    (call,) = implicit.kernel_calls(Case.of("forward", geometry, dtype, 1), tuned)
    blocking = call.tiling.blocking
    layout = Layout(blocking.conv_axes, blocking.count, blocking.block, blocking.row)
    fit = tuned.swapped_bytes // (layout.channel_pitch(dtype.itemsize) * dtype.itemsize)
    usual = round(tuned.kc / 49)  # The limit that applies to blocks in every mode.
    assert fit < 8 and call.tiling.block_channels <= max(fit, usual)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_packed_weights(threads, groups, dtype, isa, fresh):
    """All threads share one copy of the packed weights.

    Every call packs them anew; two threads may pack the same panel.
    """
    shapes, options = ((12, 50, 20, 25), (64, 50 // groups, 3, 3)), {"pad": 1, "groups": groups}
    (x, w, b), _ = example(*shapes, dtype, **options)
    with fastconv.threads(threads):
        out = agree(*shapes, options, dtype)
        geometry = conv_geometry(*shapes, **options)
        (call,) = implicit.kernel_calls(Case.of("forward", geometry, np.dtype(dtype), threads))
        assert call.kernel.shared > w.size
        for sign in (-1, 1):
            assert np.array_equal(conv_forward(x, sign * w, sign * b, options, algorithm="implicit")[0], sign * out)
