"""Algorithms selected by name for unsuitable geometries: memory and work are bounded, or an error states their size."""

import functools
import math
import re
import tracemalloc

import numpy as np
import pytest
from cases import CASES, close, cost_of, in_case

import fastconv
from fastconv import conv, conv_backward, conv_forward, im2col
from fastconv._ext.buffers import buffers
from fastconv.convolution import choose as ALGORITHMS, dispatch as _dispatch, taps
from fastconv.convolution.base import Delegated
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.im2col import blocks as COLUMNS
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.implicit_gemm.tuning import Tuning
from fastconv.convolution.plan import OPS, Case
from fastconv.runtime import memory as _memory, workspace as _workspace
from fastconv.runtime.plan_cache import plans

REGISTRY = ALGORITHMS.REGISTRY

F32 = np.dtype(np.float32)
#: Shapes and options: long signals, large kernels, strides and dilations, many channels, many small images.
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
#: The most bytes besides arguments and result that an algorithm selected by name may take. 'toeplitz' may take more,
#: because it makes a matrix.
MOST_BYTES = 1 << 28


@pytest.mark.parametrize("name", list(ALGORITHMS.REGISTRY))
@pytest.mark.parametrize("layer", GEOMETRIES)
def test_workspace_is_bounded_or_refused(layer, name):
    for op in OPS:
        with in_case(op):
            check_workspace(layer, name, op)


def check_workspace(layer, name, op):
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry, algorithm = fastconv.conv_geometry(x_shape, w_shape, **options), ALGORITHMS.REGISTRY[name]
    reason = algorithm.unsupported(Case.of(op, geometry, F32))
    if isinstance(reason, Delegated):
        assert not ALGORITHMS.choose(Case.of(op, geometry, F32, 2), name).uses_transforms
        return
    if reason is not None:
        with pytest.raises(ValueError, match=rf"algorithm '{name}' cannot do this {op}: {re.escape(reason)}"):
            ALGORITHMS.choose(Case.of(op, geometry, F32, 2), name)
        return
    moved = 4 * sum(map(math.prod, (x_shape, w_shape, geometry.out_shape)))
    most = {"toeplitz": 3 << 30, "reference": MOST_BYTES + 8 * moved}.get(name, MOST_BYTES + moved)
    assert algorithm.plan(Case.of(op, geometry, F32, 2)).workspace_bytes <= most


@pytest.mark.parametrize("layer", ["signal", "half a signal", "signals of channels", "large kernel", "channels"])
def test_blocks_of_columns_stay_in_cache(layer):
    """Blocks stay in cache if the columns of an image would take gigabytes, and if only the weights are large."""
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
    assert geometry.im2col_bytes() / x_shape[0] > COLUMNS.MOST_BYTES or layer == "channels"
    for op in OPS:
        cut = COLUMNS.cut(op, geometry, F32)
        if cut is not None:
            assert ALGORITHMS.REGISTRY["im2col"].plan(Case.of(op, geometry, F32, 2)).workspace_bytes <= 4 << 20
            assert min(cut.positions, cut.rows) >= min(128, geometry.positions)


def test_memory_of_columns_is_what_was_said(monkeypatch, rng):
    """The traced peak of im2col agrees with its stated workspace; a small limit replaces the size of a machine."""
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))
    x, w = rng.standard_normal((1, 1, 40_000), np.float32), rng.standard_normal((1, 1, 301), np.float32)
    geometry = fastconv.conv_geometry(x.shape, w.shape)
    assert geometry.im2col_bytes() > COLUMNS.MOST_BYTES
    out, dx, dw = np.empty(geometry.out_shape, np.float32), np.empty_like(x), np.empty_like(w)
    by = ALGORITHMS.REGISTRY["im2col"]
    arrays = {"forward": (x, w, None, out), "backward_data": (out, w, None, dx), "backward_weights": (x, out, None, dw)}
    for op in OPS:
        call = functools.partial(by.plan(Case.of(op, geometry, F32, 1)).run, *arrays[op])
        call()
        _workspace.release_workspaces()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= by.plan(Case.of(op, geometry, F32, 1)).workspace_bytes + 200_000 < 4 << 20
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


@pytest.mark.parametrize(
    ("dtype", "threads", "sizes"),
    [(np.float32, 2, (6000, 16, 12_000)), (np.float64, 1, (2000, 8, 4000))],
    ids=["f32", "f64"],
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_blocks_of_columns_against_loops(case, dtype, threads, sizes, forget, monkeypatch):
    """Blocks of 1,500 and of 250 elements."""
    x, w, b = case.arrays(dtype)
    small_blocks(monkeypatch, *sizes)
    forget()
    out, cache = conv_forward(x, w, b, case.options, algorithm="im2col", threads=threads)
    results = out, *conv_backward(case.gradient(dtype), cache)
    for found, expected in zip(results, case.expected(dtype), strict=True):
        close(found, expected, dtype)


def test_columns_are_cut_every_way(monkeypatch, rng):
    """Blocks cut groups, channels, taps and positions; each has its part of the image, its padding and its sums."""
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
            ALGORITHMS.REGISTRY["im2col"].plan(Case.of("forward", geometry, x.dtype, 2)).run(x, w, None, out)
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert seen == {"groups", "channels", "taps", "positions"}


@pytest.mark.parametrize("layer", GEOMETRIES)
def test_winograd_does_at_most_ten_times_the_products(layer):
    """Its vector operations are at most ten times the products, or they are few, or it refuses the geometry."""
    x_shape, w_shape, options = GEOMETRIES[layer]
    geometry, by = fastconv.conv_geometry(x_shape, w_shape, **options), ALGORITHMS.REGISTRY["winograd"]
    lanes = fastconv._ext.gemm.microkernel.shape(0, fastconv.runtime.isa.current)[2]
    for op in OPS:
        if by.unsupported(Case.of(op, geometry, F32)) is None:
            work = by.plan(Case.of(op, geometry, F32, 1)).work
            operations = sum(work[kind] for kind in ("product", "image", "result", "weights"))
            operations /= fastconv.runtime.isa.relative()
            assert operations <= max(1.2 * (1 << 28), 12 * multiply_adds(geometry) / lanes)


@pytest.mark.skipif(fastconv.runtime.isa.current == 0, reason="four lanes: few of them are empty")
def test_winograd_on_a_signal_is_refused_with_its_work():
    x, w = np.zeros((1, 1, 1_000_000), np.float32), np.ones((1, 1, 4001), np.float32)
    out = np.full((1, 1, 1_000_000), 7, np.float32)
    with pytest.raises(
        ValueError,
        match=r"^algorithm 'winograd' cannot do this forward: its transforms and products take \d{10} vector "
        r"operations, but a direct convolution only \d{9,}; .* use 'implicit', 'fft' or 'auto'$",
    ):
        conv(x, w, pad=2000, algorithm="winograd", out=out)
    assert (out == 7).all()
    # Few channels alone are no reason for a refusal, because images of a few MB take little time.
    conv(np.zeros((1, 1, 200, 200), np.float32), np.ones((1, 1, 3, 3), np.float32), algorithm="winograd")


def test_dilations_of_very_many_parts_are_refused():
    x, w = np.zeros((1, 1, 600, 600), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"dilation \(200, 200\), an image would be split into 40000 parts"):
        conv(x, w, dilation=200, algorithm="winograd")
    conv(x, w, dilation=100, algorithm="winograd")


def test_reference_does_not_build_padding_that_is_leapt_over():
    x, w = np.ones((1, 1, 10, 10)), np.ones((1, 1, 3, 3))
    options = {"pad": 20_000, "stride": 20_000}
    with pytest.raises(ValueError, match=r"'reference' cannot do this forward: .* would take 2\d{10} bytes in float64"):
        conv(x, w, algorithm="reference", **options)
    assert conv(x, w, **options).sum() == conv(x, w, algorithm="implicit", **options).sum() == 9


def test_a_lowered_matrix_that_is_not_free_is_refused(monkeypatch):
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: 1 << 30)
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
    """A gradient at stride 9 of a volume has 729 phases of 8 sizes, so 8 tables are made; the test counts them."""
    tables = fastconv.convolution.sparse.tables
    made, make = [], tables.make_tables
    monkeypatch.setattr(tables, "make_tables", lambda *args: (made.append(args), make(*args))[1])
    geometry = fastconv.conv_geometry((1, 2, 90, 90, 90), (4, 2, 10, 10, 10), stride=9)
    plans.clear()
    phases = REGISTRY["sparse"].plan(Case.of("backward_data", geometry, F32, 1)).plan
    assert sum(phase.times for phase in phases.phases) == 729 and len(phases.phases) == 8
    for _ in range(2):
        assert sum(1 for _ in phases.each) == 729
    assert len(made) == 8


def test_a_gradient_of_scattered_taps_is_computed_tap_by_tap(monkeypatch, rng):
    """With dilation 400, 900 of 810 x 810 cells of the gradient are not zero: nine products for each of 100 outputs."""
    calls, run = [], taps.TapByTap.run
    monkeypatch.setattr(taps.TapByTap, "run", lambda *args: (calls.append(args), run(*args))[1])
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


def run_op(name, op, geometry, threads=1):
    """Run an op on arrays of ones with algorithm `name`, and return its result."""
    x, w, dout = (np.ones(shape, np.float32) for shape in (geometry.x_shape, geometry.w_shape, geometry.out_shape))
    result = {"forward": np.empty_like(dout), "backward_data": x + 7, "backward_weights": w + 7}.get(op, x + 7)
    if op == "forward":
        _dispatch.forward(x, w, None, geometry, result, name, threads)
    elif op == "conv_transpose_forward":
        _dispatch.conv_transpose_forward(dout, w, np.ones(x.shape[1], np.float32), geometry, result, name, threads)
    else:
        first = dout if op == "backward_data" else x
        second = w if op == "backward_data" else dout
        getattr(_dispatch, op)(first, second, geometry, result, name, threads)
    return result


#: Layers with huge sizes and strides but small arrays.
HUGE = {
    "dilation": ((1, 1, 9), (1, 1, 2), {"dilation": 10**12, "pad": ((0, 10**12),)}),
    "dilation of many": ((1, 1, 9), (1, 1, 300), {"dilation": 10**9, "pad": ((0, 299 * 10**9),)}),
    "dilation of an axis": ((1, 1, 9, 9), (1, 1, 3, 3), {"dilation": (1, 10**12), "pad": ((1, 1), (10**12, 10**12))}),
    "stride": ((1, 1, 9), (1, 1, 3), {"stride": 10**15, "pad": 1}),
    "stride of an axis": ((1, 1, 9, 9), (1, 1, 3, 3), {"stride": (1, 10**15), "pad": ((1, 1), (10**15, 10**15))}),
    "pad": ((1, 1, 9), (1, 1, 3), {"stride": 10**11, "pad": 10**12}),
}


@pytest.mark.parametrize("op", ["forward", "backward_data", "conv_transpose_forward", "backward_weights"])
@pytest.mark.parametrize("layer", HUGE)
@pytest.mark.parametrize("name", [*REGISTRY, "auto", "exact"])
def test_huge_numbers_are_served_or_refused_before_memory_is_taken(name, layer, op):
    x, w, options = HUGE[layer]
    geometry = fastconv.conv_geometry(x, w, **options)
    plans.clear()
    tracemalloc.start()
    try:
        result = run_op(name, op, geometry)
    except ValueError as error:
        assert name not in ("auto", "exact"), error
        assert type(error) is _memory.TooLargeError or "algorithm" in str(error)
        if type(error) is _memory.TooLargeError:
            assert re.search(r"takes \d{13,} bytes; \d+ bytes are free. algorithm='im2col'", str(error)), error
    else:
        np.testing.assert_allclose(result, run_op("im2col", op, geometry), rtol=0, atol=1e-5)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_workspace_that_is_not_free_is_refused(monkeypatch):
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: 100 << 20)
    x, w = np.zeros((1, 1, 9)), np.zeros((1, 1, 2))
    options = {"dilation": 10**8, "pad": ((0, 10**8),)}
    with pytest.raises(
        MemoryError, match=r"^a workspace for blocks of the image takes 16.* bytes; 104857600 bytes are"
    ):
        conv(x, w, **options, algorithm="implicit")
    assert not conv(x, w, **options, algorithm="exact").any()


def test_planning_looks_at_one_stride_phase_of_a_kind(monkeypatch):
    """A gradient with 4096 phases is planned from few different phases, unless it is run; the test counts the plans."""
    implicit = fastconv.convolution.implicit_gemm.calls
    sparse = fastconv.convolution.sparse.tables
    made = []
    for module, name in ((implicit, "_product_call"), (sparse, "make_tables")):
        plan = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, plan=plan: (made.append(1), plan(*args))[1])
    geometry = fastconv.conv_geometry((1, 3, 130, 130), (8, 3, 64, 64), stride=64, pad=1)
    for name in ("implicit", "sparse"):
        made.clear()
        plans.clear()
        cost_of(name, Case.of("backward_data", geometry, F32, 2))
        assert REGISTRY[name].plan(Case.of("backward_data", geometry, F32, 2)).workspace_bytes > 0
        assert 0 < len(made) <= 16, name
    made.clear()
    plans.clear()
    run_op("auto", "backward_data", geometry)
    assert len(made) <= 16


PHASES = pytest.mark.parametrize(
    "options", [{"stride": 7, "pad": 3}, {"stride": 6, "dilation": 4}, {"stride": (9, 2)}], ids=str
)


@PHASES
def test_work_of_sparse_phases_is_that_of_all(options):
    """Phases that are alike are planned once; their work is still the sum over all phases, and the workspace the maximum."""
    geometry = fastconv.conv_geometry((2, 3, 61, 57), (4, 3, 8, 9), **options)
    phases = REGISTRY["sparse"].plan(Case.of("backward_data", geometry, F32, 2)).plan
    each = [phase.plan for phase in phases.each]
    assert len(each) > len(phases.phases)
    assert phases.workspace_bytes == max(plan.workspace_bytes for plan in each)
    for kind, amount in phases.work.items():
        assert amount == pytest.approx(sum(plan.work[kind] for plan in each))


@PHASES
def test_kinds_of_stride_phases_count_all_of_them(options):
    """Work and workspace of many phases are the sums and maxima of their plans."""
    geometry = fastconv.conv_geometry((2, 3, 61, 57), (4, 3, 8, 9), **options)
    case = Case.of("backward_data", geometry, F32, 2)
    found = Implicit().plan(case)
    wanted = Implicit(Tuning(few_phases=1 << 20)).plan(case)
    assert found.work == pytest.approx(wanted.work) and found.workspace_bytes == wanted.workspace_bytes


def test_many_phases_of_a_pruned_kernel(rng):
    """Stride phases that share a plan give the results of the definition."""
    x, w = rng.standard_normal((2, 2, 40, 41)), rng.standard_normal((3, 2, 7, 8))
    w[rng.random(w.shape) < 0.8] = 0
    for options in ({"stride": 6, "pad": 2}, {"stride": (7, 5), "dilation": (3, 2), "pad": ((9, 4), (3, 6))}):
        grads = []
        for name in ("sparse", "implicit", "reference"):
            out, cache = conv_forward(x, w, None, **options, algorithm=name)
            grads.append(conv_backward(np.cos(np.arange(out.size)).reshape(out.shape), cache)[0])
        np.testing.assert_allclose(grads[0], grads[2], atol=1e-13)
        np.testing.assert_allclose(grads[1], grads[2], atol=1e-13)


def test_work_tap_by_tap_is_that_of_its_taps():
    """The work for 9 scattered taps is nine pointwise products, whose results are added to dx."""
    geometry = fastconv.conv_geometry((2, 3, 810, 810), (4, 3, 3, 3), dilation=400)
    entry, layer = REGISTRY["implicit"], fastconv.conv_geometry((2, 3, 100), (4, 3, 1))
    work, each = (entry.plan(Case.of("backward_data", g, F32, 1)).work for g in (geometry, layer))
    assert work["product"] == 9 * each["product"] and work["call"] == 9
    assert work["summed"] == 9 * (2 * 3 * 100 + 4 * 3)
    assert entry.plan(Case.of("backward_data", geometry, F32, 1)).workspace_bytes < 1 << 17


def test_large_tables_of_transforms_are_given_back():
    lengths = fastconv.convolution.fft.lengths
    x, w = np.ones((1, 1, 500_000), np.float32), np.ones((1, 1, 20_001), np.float32)
    conv(x, w, algorithm="fft")
    assert lengths._many_factors.cache_info().currsize + lengths._few_factors.cache_info().currsize > 0
    fastconv.release_memory()
    assert lengths._many_factors.cache_info().currsize == lengths._few_factors.cache_info().currsize == 0


@pytest.mark.parametrize("op", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 1, 100_000), (1, 1, 100_000), {}),
        ((1, 1, 3000), (1, 1, 3000), {"pad": 2999}),
        ((1, 1, 20_000), (1, 1, 9_000), {"stride": 900}),
        ((1, 4, 40, 40), (6, 4, 40, 40), {}),
    ],
)
def test_toeplitz_takes_what_it_says(x, w, options, op, monkeypatch):
    """The stated workspace is a bound of what a call takes, and a call that has less memory is refused."""
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))  # Memory of the pool is not traced.
    geometry = fastconv.conv_geometry(x, w, **options)
    run_op("toeplitz", op, geometry)
    plans.clear()
    tracemalloc.start()
    given = 4 * sum(math.prod(shape) for shape in (x, w, geometry.out_shape)) + 4 * math.prod(x)
    run_op("toeplitz", op, geometry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = REGISTRY["toeplitz"].plan(Case.of(op, geometry, F32, 1)).workspace_bytes
    assert peak - given < 1.1 * said + 200_000
    monkeypatch.setattr("fastconv.runtime.memory._ALWAYS_FREE", 0)
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: said - 1)
    with pytest.raises(_memory.TooLargeError, match=f"^algorithm 'toeplitz' takes {said} bytes; {said - 1} bytes are"):
        run_op("toeplitz", op, geometry)
