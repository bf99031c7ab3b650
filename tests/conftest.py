"""Fixtures and settings that all tests share."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import settings

import fastconv
from fastconv.convolution.depthwise import Depthwise, Tuning as DepthwiseTuning
from fastconv.convolution.fft.algorithm import Fft
from fastconv.convolution.fft.tiling import Tuning as FftTuning
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.implicit_gemm.tuning import Tuning as ImplicitTuning
from fastconv.convolution.registry import REGISTRY
from fastconv.convolution.separable.algorithm import Separable
from fastconv.convolution.separable.tables import Tuning as SeparableTuning
from fastconv.convolution.sparse import plan as sparse_plans
from fastconv.convolution.sparse.algorithm import Sparse
from fastconv.convolution.sparse.tiling import Tuning as SparseTuning
from fastconv.convolution.winograd import tiles as winograd
from fastconv.layers import calls
from fastconv.layers.pool import plan as pooling
from fastconv.runtime import isa as _isa

# A loaded machine is slow at times, and a deadline would report that as a failure. Each run draws other examples, so
# many runs with few examples find what one run with many finds. `.ci/run` draws more.
settings.register_profile("fastconv", deadline=None, max_examples=int(os.environ.get("TEST_EXAMPLES", "20")))
settings.load_profile("fastconv")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Use one process for each CPU for a run of all tests, if pytest-xdist is installed and `-n` was not given."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    single = config.option.usepdb or config.option.collectonly or hasattr(config, "workerinput")
    if whole and not single and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = os.cpu_count(), "worksteal"


#: Block sizes of `implicit` with which small layers have many blocks.
TINY_IMPLICIT = ImplicitTuning(
    block_bytes=500,
    panel_bytes=1,
    nc=5,
    kc=7,
    kc_narrow=7,
    kc_min=3,
    packing_rows=0.5,
    shared_blocks=0.5,
    summed=14,
    least_summed=6,
)
TINY_DEPTHWISE = DepthwiseTuning(block_bytes=200, totals_bytes=200, wide_vectors=1, high=1)
TINY_SEPARABLE = SeparableTuning(rows_bytes=1, most_rows_bytes=1, planes_bytes=1, wide=5, deep=2)
TINY_POOLING = pooling.Tuning(
    block_elements=90, band_bytes=200, ring_bytes=100, least_width=3, power_bytes=1, window_bytes=1
)


def pytest_collection_modifyitems(items):
    """Run a case with all instruction sets and block sizes one after the other, so that they share expected results."""
    first, varied = {}, ("isa", "each_isa", "blocks", "pieces")

    def place(item):
        values = item.callspec.params.items() if hasattr(item, "callspec") else ()
        case = frozenset((name, id(value)) for name, value in values if name not in varied)
        return first.setdefault((item.nodeid.partition("[")[0], case), len(first))

    items.sort(key=place)


@pytest.fixture(params=["as they are", "tiny"])
def blocks(request, monkeypatch):
    """Block sizes, once as they are and once so small that every case of the table has many blocks."""
    if request.param == "tiny":
        im2col = fastconv.convolution.im2col.plan
        monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
        monkeypatch.setattr("fastconv.lowering.columns._BLOCK_BYTES", 100)
        monkeypatch.setattr(pooling, "TUNING", TINY_POOLING)
        monkeypatch.setattr(fastconv.convolution.wrappers, "_EXTENDED_BYTES", 1)
        monkeypatch.setattr(im2col, "images_a_block", lambda g, _: 1 if g.pointwise else min(3, g.x_shape[0]))
        monkeypatch.setitem(REGISTRY, "depthwise", Depthwise(TINY_DEPTHWISE))
        monkeypatch.setitem(REGISTRY, "fft", Fft(FftTuning(space_bytes=5000)))

        implicit = Implicit(TINY_IMPLICIT)
        monkeypatch.setitem(REGISTRY, "implicit", implicit)
        monkeypatch.setattr(fastconv.convolution.gemm, "IMPLICIT", implicit)
        monkeypatch.setattr(fastconv.convolution.space_to_batch, "_BATCH_BYTES", 1)
        tiny = winograd.Tuning(tiles=3, sums=3, transposed_bytes=1, space_bytes=1)
        monkeypatch.setattr(REGISTRY["winograd"], "tuning", tiny)
        monkeypatch.setattr(fastconv.convolution.toeplitz.algorithm, "_PRODUCTS", 50)
        small = SparseTuning(cells_bytes=600, sums_bytes=900, lists_bytes=5000, wide=3, most_high=2, most_wide=5)
        monkeypatch.setitem(REGISTRY, "sparse", Sparse(small))
        monkeypatch.setitem(REGISTRY, "separable", Separable(TINY_SEPARABLE))
    forget_geometries()
    yield request.param
    forget_geometries()


def forget_geometries():
    calls.clear()


@pytest.fixture
def forget():
    """A function that clears geometries and plans, for tests that change block sizes themselves."""
    yield forget_geometries
    forget_geometries()


def record_sparse(monkeypatch, ops):
    """Append each op that the algorithm 'sparse' runs to `ops`."""
    for kind in (sparse_plans.SparseForward, sparse_plans.SparseGradient, sparse_plans.SparseWeightGradient):
        monkeypatch.setattr(
            kind, "run", lambda self, *arrays, run=kind.run: (ops.append(self.case.op), run(self, *arrays))[1]
        )


@pytest.fixture
def made(monkeypatch):
    """A function that records the calls of a module's function: arguments and result of each."""

    def note(module, name):
        results, make = [], getattr(module, name)

        def noted(*arguments):
            results.append((arguments, make(*arguments)))
            return results[-1][1]

        monkeypatch.setattr(module, name, noted)
        return results

    return note


@pytest.fixture(scope="session")
def torch():
    """PyTorch with one thread, because the threads of several test processes would wait for each other's CPUs."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(params=_isa.usable())
def isa(request, monkeypatch):
    """Runs the test with every instruction set of this machine."""
    monkeypatch.setattr("fastconv.runtime.isa.current", _isa.NAMES.index(request.param))
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    return request.param


@pytest.fixture
def isas(monkeypatch):
    """The instruction sets of this machine, one after the other; each is in use until the next is asked for."""

    def select():
        monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
        for name in _isa.usable():
            monkeypatch.setattr("fastconv.runtime.isa.current", _isa.NAMES.index(name))
            yield name

    return select()


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
