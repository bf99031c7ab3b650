"""Matrix products: their values, their threads, and when BLAS computes them."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl
from cases import BY_NAME, CASES, close, set_cost
from conftest import forget_geometries
from test_workspace import LAYERS, SLACK, asked_for

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_geometry, layers
from fastconv.compat import cs231n
from fastconv.convolution import dispatch as _dispatch, gemm as GEMM
from fastconv.convolution.choose import REGISTRY, choose
from fastconv.convolution.gemm import gemm, matmul
from fastconv.convolution.plan import OPS, Case
from fastconv.runtime import blas as _blas

FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
#: (m, k, n): empty; one row, column or term; small; few rows with many columns or the reverse; several blocks of each.
SHAPES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 300, 70),
    (70, 300, 1),
    (60, 1, 50),
    (5, 6, 7),
    (7, 150, 400),
    (400, 150, 7),
    (33, 257, 129),
    (130, 900, 75),
]
#: A layer for which 'auto' would use BLAS.
POINTWISE = (8, 1024, 14, 14), (256, 1024, 1, 1)


def laid_out(array, how):
    """The same matrix: as it is, as the transpose of a C-contiguous one, or with gaps between its elements."""
    if how == "transposed":
        return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    if how == "strided":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return array


def agree(actual, wanted, scale):
    eps = np.finfo(actual.dtype).eps
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=8 * eps * max(1.0, np.max(scale, initial=0.0)))


@FLOATS
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(shape, batch, dtype, isa, rng):
    m, k, n = shape
    a, b = rng.standard_normal((*batch, m, k)).astype(dtype), rng.standard_normal((*batch, k, n)).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    for first, second in itertools.product(("as it is", "transposed", "strided"), repeat=2):
        for threads in (1, 3):
            out = np.full((*batch, m, n), np.nan, dtype)
            gemm(laid_out(a, first), laid_out(b, second), out, threads)
            agree(out, exact, scale)


@FLOATS
@pytest.mark.parametrize("case", [case for case in CASES if all(case.x)], ids=lambda case: case.name)
def test_im2col_without_blas(case, dtype, monkeypatch):
    wanted = case.expected(dtype)
    monkeypatch.setattr(_blas, "_count", lambda: 0)
    monkeypatch.setattr(np, "matmul", small_only(np.matmul))
    x, w, b = case.arrays(dtype)
    out, cache = conv_forward(x, w, b, case.options, algorithm="im2col", threads=2)
    for actual, expected in zip((out, *conv_backward(case.gradient(dtype), cache)), wanted, strict=True):
        close(actual, expected, dtype)


def small_only(matmul):
    """NumPy's product, which raises an error if BLAS might use threads of its own."""

    def call(a, b, **options):
        assert a.shape[-2] * a.shape[-1] * b.shape[-1] <= 1 << 16
        return matmul(a, b, **options)

    return call


@pytest.mark.parametrize("threads", [1, 2])
@FLOATS
@pytest.mark.parametrize("layer", LAYERS)
def test_workspace_of_im2col_without_blas(layer, dtype, threads, rng, monkeypatch):
    monkeypatch.setattr(_blas, "_count", lambda: 0)
    x_shape, w_shape, options = LAYERS[layer]
    geometry, entry = conv_geometry(x_shape, w_shape, **options), REGISTRY["im2col"]
    x, w, dout = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, geometry.out_shape))
    for op in OPS:
        result = np.empty_like({"forward": dout, "backward_data": x, "backward_weights": w}[op])
        arguments = {"forward": (x, w), "backward_data": (dout, w), "backward_weights": (x, dout)}[op]
        call = entry.plan(Case.of(op, geometry, x.dtype, threads)).run
        peak = asked_for(lambda call=call, arguments=arguments, result=result: call(*arguments, None, result))
        assert peak <= entry.plan(Case.of(op, geometry, x.dtype, threads)).workspace_bytes + SLACK, op


@pytest.fixture
def blas_is_fast(monkeypatch):
    """Makes 'im2col' the cheapest algorithm, whatever the rates of this CPU are."""
    forget_geometries()
    set_cost(monkeypatch, "im2col", 1e-9)
    yield
    forget_geometries()


@pytest.mark.usefixtures("blas_is_fast")
def test_auto_takes_blas_only_where_it_is_within_the_threads_of_the_call(monkeypatch):
    geometry, dtype = conv_geometry(*POINTWISE), np.dtype(np.float32)
    taken = {}
    for count in (0, 1, 2, 3):  # 0 is unknown
        monkeypatch.setattr(_blas, "_count", lambda count=count: count)
        taken[count] = choose(Case.of("forward", geometry, dtype, 1)).algorithm
    assert taken == {0: "implicit", 1: "im2col", 2: "implicit", 3: "implicit"}


@pytest.mark.usefixtures("blas_is_fast")
def test_a_limit_between_calls_is_noticed(rng, monkeypatch):
    """The choice is stored with the geometry. A call asks BLAS for its threads only if the choice depends on them."""
    ran, asked, counts = [], [], iter((1, 2, 1, 0))
    for name in ("im2col", "implicit"):
        kind = type(REGISTRY[name])
        monkeypatch.setattr(kind, "plan", recorded(kind.plan, name, ran))
    dout, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 64, 14, 14), (64, 64, 1, 1)))
    results = []
    for count in counts:
        monkeypatch.setattr(_blas, "_count", lambda count=count: asked.append(count) or count)
        results.append(np.empty_like(dout))
        _dispatch.backward_data(dout, w, conv_geometry(dout.shape, w.shape), results[-1], "auto", 1)
    assert ran == ["im2col", "implicit", "im2col", "implicit"]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-4)
    forget_geometries()
    set_cost(monkeypatch, "im2col", 1e9)
    for _ in range(2):
        asked.clear()
        conv(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)), threads=1)
    assert asked == []


def recorded(plan, name, ran):
    def planned(self, case):
        found = plan(self, case)
        found.run = lambda *arrays, run=found.run: ran.append(name) or run(*arrays)
        return found

    return planned


@pytest.mark.usefixtures("blas_is_fast")
def test_explain_says_whose_threads_they_are(monkeypatch):
    monkeypatch.setattr(_blas, "_count", lambda: 4)
    sheet = fastconv.explain(*POINTWISE, threads=2)
    assert "it multiplies by BLAS, which uses 4 threads, and the call may use 2" in sheet and "-> im2col" not in sheet
    monkeypatch.setattr(_blas, "_count", lambda: 0)
    assert "it multiplies by BLAS, which uses an unknown number of threads" in fastconv.explain(*POINTWISE, threads=2)
    assert "-> im2col, as requested" in fastconv.explain(*POINTWISE, threads=2, algorithm="im2col")
    monkeypatch.setattr(_blas, "_count", lambda: 1)
    assert "-> im2col, chosen" in fastconv.explain(*POINTWISE, threads=1)


def test_threads_of_blas_are_counted():
    """fastconv and threadpoolctl find the same number of BLAS threads."""
    counted = [
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["internal_api"] == "openblas" and "numpy" in library["filepath"]
    ]
    if not counted:
        pytest.skip("NumPy does not bring an OpenBLAS of its own")
    assert [_blas.threads()] == counted
    with threadpoolctl.threadpool_limits(1):
        assert _blas.threads() == 1 and _blas.within(1)
    with threadpoolctl.threadpool_limits(3):
        assert _blas.threads() == 3 and _blas.within(3) and not _blas.within(2)


@pytest.mark.parametrize(("count", "words"), [(0, "an unknown number of threads"), (1, "1 thread"), (3, "3 threads")])
def test_the_sheet_of_the_installation_tells_them(count, words, monkeypatch, capsys):
    monkeypatch.setattr(_blas, "_count", lambda: count)
    fastconv.show_config()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BLAS behind NumPy")]
    assert line.endswith(f", {words}")


def test_an_unknown_blas_counts_as_too_many(monkeypatch):
    monkeypatch.setattr(_blas, "_counters", lambda: iter(()))
    monkeypatch.setattr(_blas, "_count", _blas._find_counter)
    assert _blas.threads() is None and not _blas.within(10**6)
    assert _blas._count is _blas._unknown


COUNTING = """
import json, os, sys, time
import numpy as np
import fastconv
from fastconv import layers
from fastconv.compat import cs231n
from fastconv.convolution.gemm import gemm

threads = int(sys.argv[1])
fastconv.set_threads(threads)
rng = np.random.default_rng(0)

def array(*shape):
    return rng.standard_normal(shape).astype(np.float32)

def seconds():
    # CPU time of every thread of the process: in nanoseconds where the kernel counts them, else in ticks.
    found = {}
    for task in os.listdir("/proc/self/task"):
        path = f"/proc/self/task/{task}/"
        if os.path.exists(path + "schedstat"):
            with open(path + "schedstat") as file:
                found[task] = 1e-9 * int(file.read().split()[0])
        else:
            with open(path + "stat") as file:
                fields = file.read().rpartition(")")[2].split()
            found[task] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found

def busy(call):
    call()
    time.sleep(0.15)  # until the threads of what ran before have stopped spinning
    before, end = seconds(), time.process_time() + 0.1
    while time.process_time() < end:
        call()
    gained = [after - before.get(task, 0.0) for task, after in seconds().items()]
    return sum(gain >= 0.1 * sum(gained) for gain in gained)

x, w = array(8, 512, 14, 14), array(256, 512, 1, 1)
small, filters = array(2, 64, 28, 28), array(64, 64, 3, 3)
images, kernels = array(2, 24, 64, 64), array(24, 24, 15, 15)
rows, weights, bias = array(100, 3072), array(3072, 200), array(200)
a, b, out = array(40, 50), array(50, 32), np.empty((40, 32), np.float32)
param = {"stride": 1, "pad": 1}

def both(forward, backward, *arguments, **options):
    def call():
        result, cache = forward(*arguments, **options)
        backward(result, cache)
    return call

conv = fastconv.conv_forward, fastconv.conv_backward
counts = {
    "auto, pointwise": busy(both(*conv, x, w, None)),
    "im2col": busy(both(*conv, small, filters, None, pad=1, algorithm="im2col")),
    "fft": busy(both(*conv, images, kernels, None, algorithm="fft")),
    "affine": busy(both(layers.affine_forward, layers.affine_backward, rows, weights, bias)),
    "one row": busy(both(layers.affine_forward, layers.affine_backward, rows[:1], weights, bias)),
    "cs231n": busy(both(cs231n.conv_forward_fast, cs231n.conv_backward_fast, small, filters, array(64), param)),
    "small": busy(lambda: gemm(a, b, out, threads)),
}
large = array(600, 600)
counts["BLAS itself"] = busy(lambda: large @ large)
print(json.dumps(counts))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the CPU time of threads in /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_calls_run_in_the_threads_they_are_told(threads):
    """BLAS has more threads than the call.

    If it used them, the CPU time would show it, because waiting threads of BLAS spin.
    """
    result = subprocess.run(
        [sys.executable, "-c", COUNTING, str(threads)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads + 1)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    itself = counts.pop("BLAS itself")
    # BLAS has at most as many threads as there are CPUs. If that is within the call's threads, BLAS multiplies, and its
    # threads take turns with fastconv's, which make the columns.
    most = threads if itself > threads else threads + itself - 1
    assert 1 <= counts.pop("fft") <= threads, counts
    assert all(1 <= count <= most for count in counts.values()), (itself, counts)
    assert itself > threads or (os.cpu_count() or 1) <= threads, (itself, counts)


@FLOATS
def test_affine(dtype, rng):
    for n, d, m in ((1, 300, 40), (30, 300, 1), (64, 200, 33), (0, 5, 4), (7, 20, 300)):
        x, w, b = rng.standard_normal((n, d)), rng.standard_normal((d, m)), rng.standard_normal(m)
        dout = rng.standard_normal((n, m))
        wanted = x @ w + b, dout @ w.T, x.T @ dout, dout.sum(axis=0)
        out, cache = layers.affine_forward(*(array.astype(dtype) for array in (x, w, b)))
        for actual, expected in zip((out, *layers.affine_backward(dout, cache)), wanted, strict=True):
            assert actual.dtype == dtype and actual.flags.c_contiguous
            agree(actual, expected, 40.0)


@pytest.mark.parametrize("form", ["im2col", "strides"])
def test_course_columns_in_the_cache_may_be_of_any_layout(form, rng):
    """A homework may change a cache: the copy of the columns may have another memory order or dtype."""
    x, w, b = rng.standard_normal((3, 4, 9, 8)), rng.standard_normal((6, 4, 3, 3)), rng.standard_normal(6)
    out, cache = getattr(cs231n, f"conv_forward_{form}")(x, w, b, {"stride": 1, "pad": 1})
    backward = getattr(cs231n, f"conv_backward_{form}")
    wanted = backward(out, cache)
    for columns in (np.asfortranarray(cache[-1]), laid_out(cache[-1], "strided"), cache[-1].astype(">f8")):
        for actual, expected in zip(backward(out, (*cache[:-1], columns)), wanted, strict=True):
            assert actual.dtype == np.float64
            agree(actual, expected, 1e4)


def test_matmul_uses_the_default_threads(monkeypatch, rng):
    seen = []
    monkeypatch.setattr(GEMM, "gemm", lambda a, b, out, threads: seen.append(threads))
    with fastconv.threads(3):
        matmul(np.ones((2, 3)), np.ones((3, 4)))
    assert seen == [3]


def test_tables_of_cases_have_what_im2col_needs():
    """Groups, pointwise layers and several images side by side need different kinds of products."""
    assert {"2d_groups", "2d_pointwise", "2d_pointwise_groups", "2d_many_images"} <= set(BY_NAME)
