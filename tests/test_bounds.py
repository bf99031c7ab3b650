"""Algorithms by name on geometries that are not theirs: memory and work are bounded, or refused with their size."""

import math
import re
import sys
import tracemalloc

import numpy as np
import pytest
from cases import CASES

import fastconv
from fastconv import _arrays, _memory, conv, conv_backward, conv_forward, im2col
from fastconv._ext import buffers
from fastconv._plan_cache import plans
from fastconv.algorithms.base import OPS, multiply_adds

ALGORITHMS = sys.modules["fastconv.algorithms"]
COLUMNS = sys.modules["fastconv.algorithms._columns"]
F32 = np.dtype(np.float32)
#: Long signals, large kernels, strides and dilations, many channels, many small images: shapes and options.
GEOMETRIES = {
    "signal": ((1, 1, 1_000_000), (1, 1, 4001), {"pad": 2000}),
    "kernel is signal": ((1, 1, 300_000), (1, 1, 300_000), {}),
    "half a signal": ((1, 1, 100_000), (1, 1, 50_001), {}),
    "signals of channels": ((1, 64, 16_000), (64, 64, 1024), {}),
    "signal, stride": ((1, 1, 1_000_000), (1, 1, 8000), {"stride": 4000}),
    "bank": ((1, 1, 200_000), (256, 1, 512), {"stride": 16}),
    "large kernel": ((1, 1, 512, 512), (1, 1, 129, 129), {"pad": 64}),
    "larger kernel": ((1, 1, 400, 400), (1, 1, 301, 301), {}),
    "kernel is image": ((4, 3, 224, 224), (16, 3, 224, 224), {}),
    "stride": ((1, 3, 4000, 4000), (8, 3, 11, 11), {"stride": 1000}),
    "dilation": ((1, 2, 2100, 2100), (2, 2, 3, 3), {"dilation": 1000}),
    "channels": ((2, 2048, 3, 3), (1024, 2048, 3, 3), {"pad": 1}),
    "groups": ((1, 8192, 7, 7), (8192, 1, 7, 7), {"pad": 3, "groups": 8192}),
    "batch": ((100_000, 1, 4, 4), (2, 1, 3, 3), {"pad": 1}),
    "volume": ((1, 1, 134, 140, 140), (1, 1, 25, 25, 25), {}),
    "deep volume": ((1, 1, 2000, 20, 20), (1, 1, 101, 3, 3), {}),
    "padding": ((1, 1, 10, 10), (1, 1, 3, 3), {"pad": 1000}),
    "padding, stride": ((1, 1, 10, 10), (1, 1, 3, 3), {"pad": 10_000, "stride": 10_000}),
}
#: Beyond arguments and result, what an algorithm that is named may take; but for 'toeplitz', which makes a matrix.
MOST_BYTES = 1 << 28


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", list(ALGORITHMS.REGISTRY))
@pytest.mark.parametrize("layer", GEOMETRIES)
def test_workspace_is_bounded_or_refused(layer, name, op):
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry, algorithm = fastconv.conv_geometry(x_shape, w_shape, **options), ALGORITHMS.REGISTRY[name]
    reason = algorithm.unsupported(op, geometry, F32)
    if reason is not None:
        with pytest.raises(ValueError, match=rf"algorithm '{name}' cannot do this {op}: {re.escape(reason)}"):
            ALGORITHMS.choose(op, geometry, F32, 2, name)
        return
    moved = 4 * sum(map(math.prod, (x_shape, w_shape, geometry.out_shape)))
    most = {"toeplitz": 1 << 30, "reference": MOST_BYTES + 8 * moved}.get(name, MOST_BYTES + moved)
    assert algorithm.workspace_bytes(op, geometry, F32, 2) <= most


@pytest.mark.parametrize("layer", ["signal", "half a signal", "signals of channels", "large kernel", "channels"])
def test_blocks_of_columns_stay_in_cache(layer):
    """Where the columns of an image would take gigabytes, or only the weights are large."""
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
    assert geometry.im2col_bytes() / x_shape[0] > COLUMNS.MOST_BYTES or layer == "channels"
    for op in OPS:
        cut = COLUMNS.cut(op, geometry, F32)
        if cut is not None:
            assert cut.workspace_bytes(op, F32, 2) <= 4 << 20
            assert min(cut.positions, cut.rows) >= min(128, geometry.positions)


def test_memory_of_columns_is_what_was_said(monkeypatch, rng):
    """Traced, with a limit that stands for the size of a machine."""
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))
    x, w = rng.standard_normal((1, 1, 40_000), np.float32), rng.standard_normal((1, 1, 301), np.float32)
    geometry = fastconv.conv_geometry(x.shape, w.shape)
    assert geometry.im2col_bytes() > COLUMNS.MOST_BYTES
    out, dx, dw = np.empty(geometry.out_shape, np.float32), np.empty_like(x), np.empty_like(w)
    by = ALGORITHMS.REGISTRY["im2col"]
    calls = {
        "forward": lambda: by.forward(x, w, None, geometry, out, 1),
        "backward_data": lambda: by.backward_data(out, w, geometry, dx, 1),
        "backward_weights": lambda: by.backward_weights(x, out, geometry, dw, 1),
    }
    for op, call in calls.items():
        call()
        _arrays.release_workspaces()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= by.workspace_bytes(op, geometry, F32, 1) + 200_000 < 4 << 20
    exact = [np.correlate(x[0, 0].astype(float), w[0, 0].astype(float), "valid")]
    exact.append(np.convolve(out[0, 0].astype(float), w[0, 0].astype(float)))
    exact.append(np.correlate(x[0, 0].astype(float), out[0, 0].astype(float), "valid"))
    for found, expected in zip((out, dx, dw), exact, strict=True):
        np.testing.assert_allclose(found[0, 0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def small_blocks(monkeypatch, most, few, hard):
    monkeypatch.setattr(COLUMNS, "MOST_BYTES", 1)
    monkeypatch.setattr(COLUMNS, "_BLOCK_BYTES", most)
    monkeypatch.setattr(COLUMNS, "_FEW", few)
    monkeypatch.setattr(COLUMNS, "_HARD_BYTES", hard)


@pytest.mark.parametrize("sizes", [(2000, 8, 4000), (6000, 16, 12_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_blocks_of_columns_against_whole_ones(case, dtype, sizes, forget, monkeypatch, rng):
    x, w, b = case.arrays(dtype)
    out, cache = conv_forward(x, w, b, case.options, algorithm="im2col")
    dout = rng.standard_normal(out.shape).astype(dtype)
    whole = out, *conv_backward(dout, cache)
    small_blocks(monkeypatch, *sizes)
    forget()
    for threads in (1, 2):
        out, cache = conv_forward(x, w, b, case.options, algorithm="im2col", threads=threads)
        for found, expected in zip((out, *conv_backward(dout, cache)), whole, strict=True):
            scale = max(np.abs(expected).max(initial=0.0), 1)
            np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-4 if dtype == np.float32 else 1e-12) * scale)


def test_columns_are_cut_every_way(monkeypatch, rng):
    """Groups, channels, taps and positions; each block's part of the image, its padding and its sums."""
    seen = set()
    shape, kernel = (2, 6, 5, 9, 11), (4, 3, 3, 2, 3)
    options = {"pad": ((2, 1), (0, 3), (4, 4)), "stride": (1, 2, 2), "dilation": (1, 3, 2), "groups": 2}
    x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
    expected = conv(x, w, algorithm="reference", **options)
    for most in (200, 800, 3000, 12_000):
        for few in (1, 8, 64):
            small_blocks(monkeypatch, most, few, 2 * most)
            geometry = fastconv.conv_geometry(shape, kernel, **options)
            plans.clear()
            cut = COLUMNS.cut("forward", geometry, np.dtype(float))
            seen |= {
                what
                for what, part, all_of in (
                    ("groups", cut.groups, 2),
                    ("channels", cut.channels, 3),
                    ("taps", cut.kernel, (3, 2, 3)),
                    ("positions", cut.outs, geometry.out_spatial),
                )
                if part != all_of
            }
            out = np.empty(geometry.out_shape)
            ALGORITHMS.REGISTRY["im2col"].forward(x, w, None, geometry, out, 2)
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert seen == {"groups", "channels", "taps", "positions"}


@pytest.mark.parametrize("layer", GEOMETRIES)
def test_winograd_does_at_most_ten_times_the_products(layer):
    """Counted in vector operations; or few of them, or refused."""
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry, by = fastconv.conv_geometry(x_shape, w_shape, **options), ALGORITHMS.REGISTRY["winograd"]
    lanes = sys.modules["fastconv._ext.implicit"].shape(0, sys.modules["fastconv._isa"].current)[2]
    for op in OPS:
        if by.unsupported(op, geometry, F32) is None:
            work = by.work(op, geometry, F32, 1)
            operations = sum(work[kind] for kind in ("product", "image", "result", "weights"))
            operations /= sys.modules["fastconv._isa"].relative()
            assert operations <= max(1.2 * (1 << 28), 12 * multiply_adds(geometry) / lanes)


@pytest.mark.skipif(sys.modules["fastconv._isa"].current == 0, reason="four lanes: few of them are empty")
def test_winograd_on_a_signal_is_refused_with_its_work():
    x, w = np.zeros((1, 1, 1_000_000), np.float32), np.ones((1, 1, 4001), np.float32)
    out = np.full((1, 1, 1_000_000), 7, np.float32)
    with pytest.raises(
        ValueError,
        match=r"^algorithm 'winograd' cannot do this forward: its transforms and products take \d{10} operations on "
        r"vectors, and sums of products \d{9,}; .* ask for 'implicit', 'fft' or 'auto'$",
    ):
        conv(x, w, pad=2000, algorithm="winograd", out=out)
    assert (out == 7).all()
    # Few channels are no reason by themselves: images of a few MB take no time worth a refusal.
    conv(np.zeros((1, 1, 200, 200), np.float32), np.ones((1, 1, 3, 3), np.float32), algorithm="winograd")


def test_dilations_of_very_many_parts_are_refused():
    x, w = np.zeros((1, 1, 600, 600), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"dilation is \(200, 200\): an image would be copied in 40000 parts"):
        conv(x, w, dilation=200, algorithm="winograd")
    conv(x, w, dilation=100, algorithm="winograd")


def test_reference_does_not_build_padding_that_is_leapt_over():
    x, w = np.ones((1, 1, 10, 10)), np.ones((1, 1, 3, 3))
    options = {"pad": 20_000, "stride": 20_000}
    with pytest.raises(ValueError, match=r"'reference' cannot do this forward: .* would take 2\d{10} bytes in float64"):
        conv(x, w, algorithm="reference", **options)
    assert conv(x, w, **options).sum() == conv(x, w, algorithm="implicit", **options).sum() == 9


def test_a_lowered_matrix_that_is_not_free_is_refused(monkeypatch):
    monkeypatch.setattr("fastconv._memory.available", lambda: 1 << 30)
    x = np.zeros((1, 1, 1_000_000), np.float32)
    with pytest.raises(
        MemoryError,
        match=r"^x \(1, 1, 1000000\) with kernel_size \(4001,\) is too large: the lowered matrix of shape .* takes "
        r"15939984000 bytes; 1073741824 bytes are free. conv\(..., algorithm='im2col'\) makes its columns a block",
    ) as caught:
        im2col(x, 4001)
    assert isinstance(caught.value, ValueError)
    assert im2col(x[..., :100], 40).shape == (1, 40, 61)


def test_plans_of_many_stride_phases_are_made_once_for_each_size(monkeypatch):
    """Counted: a gradient at stride 9 of a volume has 729 phases of 8 sizes."""
    sparse = sys.modules["fastconv.algorithms.sparse"]
    made, cut = [], sparse._cut
    monkeypatch.setattr(sparse, "_cut", lambda *args: (made.append(args), cut(*args))[1])
    geometry = fastconv.conv_geometry((1, 2, 90, 90, 90), (4, 2, 10, 10, 10), stride=9)
    plans.clear()
    assert len(sparse._plans("backward_data", geometry, F32, 1)) == 729
    assert len(made) == 8


def test_a_gradient_of_scattered_taps_is_computed_tap_by_tap(monkeypatch, rng):
    """Dilation 400: nine products for each of 100 outputs, where 810 x 810 cells are zero but for 900 of them."""
    implicit = sys.modules["fastconv.algorithms.implicit"]
    calls, by_taps = [], implicit.data_by_taps
    monkeypatch.setattr(implicit, "data_by_taps", lambda *args: (calls.append(args), by_taps(*args))[1])
    x, w = np.zeros((2, 3, 810, 810)), rng.standard_normal((4, 3, 3, 3))
    out, cache = conv_forward(x, w, None, dilation=400, algorithm="implicit")
    dout = rng.standard_normal(out.shape)
    dx = conv_backward(dout, cache, need_dw=False)[0]
    assert len(calls) == 1 and dout.shape == (2, 4, 10, 10)
    expected = np.zeros_like(x)
    for i, j in np.ndindex(3, 3):
        expected[:, :, 400 * i : 400 * i + 10, 400 * j : 400 * j + 10] += np.einsum(
            "nfhw,fc->nchw", dout, w[:, :, i, j]
        )
    np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-12)
