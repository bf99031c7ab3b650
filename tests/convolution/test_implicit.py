"""Every way in which `implicit` makes tiles, independent of the cost model, and weights that threads share."""

import functools

import numpy as np
import pytest
from cases import close, read_only
from conftest import forget_geometries

import fastconv
from fastconv import conv_backward, conv_forward, conv_geometry
from fastconv.convolution.implicit_gemm import calls as implicit, tiling
from fastconv.convolution.plan import Case

WAYS = {
    "whole": tiling.CONTIGUOUS,
    "grid": tiling.PADDED_GRID,
    "rows": tiling.ROW_WISE,
    "packed": tiling.PACKED,
    "turned": tiling.SWAPPED,
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
    modes, results = tiling._modes, made(implicit, "_make_calls")
    monkeypatch.setattr(tiling, "_modes", lambda *arguments: {WAYS[way]: modes(*arguments)[WAYS[way]]})
    monkeypatch.setattr(tiling, "_MOST_TILES", tiles)
    monkeypatch.setattr(tiling, "_PACKING_ROWS", 0 if packing else 1 << 30)
    monkeypatch.setattr(tiling, "_NEAR_BYTES", 1 << 30)
    if tiles == 3:  # With filters in the lanes, blocks of k also end between taps.
        monkeypatch.setattr(tiling, "_kc_swapped", lambda *_: 5)
    agree(x_shape, w_shape, options, dtype)
    geometry = conv_geometry(x_shape, w_shape, **options)
    results = [(op, found) for (op, its, *_), found in results if its == geometry]
    products = [plan for op, found in results if op != "backward_weights" for plan in found]
    assert {op for op, _ in results} == {"forward", "backward_data", "backward_weights"}
    assert {plan.sizes["mode"] for plan in products} == {WAYS[way]}
    assert {(plan.sizes["packing"], plan.sizes["tiles"]) for plan in products} == {(packing, tiles)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_channels_of_a_block_are_bounded_where_filters_are_in_the_lanes(dtype, isa, fresh, monkeypatch):
    """If most of a block is halo, fewer channels fit into it."""
    modes = tiling._modes
    monkeypatch.setattr(tiling, "_modes", lambda *arguments: {tiling.SWAPPED: modes(*arguments)[tiling.SWAPPED]})
    geometry = conv_geometry((2, 16, 242, 249), (48, 16, 7, 7), stride=3, dilation=40)
    (plan,) = implicit.kernel_calls(Case.of("forward", geometry, np.dtype(dtype), 1))
    of_channel = plan.sizes["channel_pitch"] * np.dtype(dtype).itemsize
    fit = tiling._SWAPPED_BYTES // of_channel
    usual = round(tiling._KC / plan.sizes["taps"])  # The limit that applies to blocks in every mode.
    assert fit < 8 < plan.sizes["channels"] and plan.sizes["block_channels"] <= max(fit, usual)


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
        (plan,) = implicit.kernel_calls(Case.of("forward", geometry, np.dtype(dtype), threads))
        assert plan.shared > w.size
        for sign in (-1, 1):
            assert np.array_equal(conv_forward(x, sign * w, sign * b, options, algorithm="implicit")[0], sign * out)
