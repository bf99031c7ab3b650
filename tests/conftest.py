"""Fixtures and settings that all tests share."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import settings

import fastconv
from fastconv.convolution.implicit_gemm import calls as implicit
from fastconv.convolution.sparse import plan as sparse_plans
from fastconv.convolution.winograd import tiles as winograd
from fastconv.layers import calls
from fastconv.layers.pool import plan as pooling
from fastconv.runtime import isa as _isa

# A loaded machine is slow at times, and a deadline would report that as a failure.
settings.register_profile("fastconv", deadline=None, max_examples=60)
settings.load_profile("fastconv")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Use one process for each CPU for a run of all tests, if pytest-xdist is installed and `-n` was not given."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    single = config.option.usepdb or config.option.collectonly
    if whole and not single and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = os.cpu_count(), "worksteal"


TINY_POOLING = pooling.Tuning(
    block_elements=90, band_bytes=200, ring_bytes=100, least_width=3, power_bytes=1, window_bytes=1
)


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
        depthwise = fastconv.convolution.depthwise
        monkeypatch.setattr(depthwise, "_BLOCK_BYTES", 200)
        monkeypatch.setattr(depthwise, "_TOTALS_BYTES", 200)
        monkeypatch.setattr(depthwise, "_WIDE_VECTORS", 1)
        monkeypatch.setattr(depthwise, "_HIGH", 1)
        monkeypatch.setattr(fastconv.convolution.fft.tiling, "SPACE_BYTES", 5000)

        tiling = fastconv.convolution.implicit_gemm.tiling
        small = {"_BLOCK_BYTES": 500, "PANEL_BYTES": 1, "_NC": 5, "_KC": 7, "_KC_NARROW": 7}
        for name, value in {**small, "_KC_MIN": 3, "_PACKING_ROWS": 0.5, "_SHARED_BLOCKS": 0.5}.items():
            monkeypatch.setattr(tiling, name, value)
        for name, value in {"PANEL_BYTES": 1, "_SUMMED": 14, "_LEAST_SUMMED": 6}.items():
            monkeypatch.setattr(implicit, name, value)
        monkeypatch.setattr(fastconv.convolution.space_to_batch, "_BATCH_BYTES", 1)
        for name, value in {"_TILES": 3, "_SUMS": 3, "_TRANSPOSED_BYTES": 1, "_SPACE_BYTES": 1}.items():
            monkeypatch.setattr(winograd, name, value)
        toeplitz = fastconv.convolution.toeplitz.plan
        monkeypatch.setattr(toeplitz, "_BLOCK_BYTES", 2000)
        monkeypatch.setattr(toeplitz, "_IMAGES", 3)
        monkeypatch.setattr("fastconv.convolution.toeplitz.csr._SLOTS", 20)
        sparse = fastconv.convolution.sparse.tiling
        for name, value in {"_CELLS_BYTES": 600, "_SUMS_BYTES": 900, "LISTS_BYTES": 5000, "_WIDE": 3}.items():
            monkeypatch.setattr(sparse, name, value)
        monkeypatch.setattr(sparse, "_MOST_HIGH", 2)
        monkeypatch.setattr(sparse, "_MOST_WIDE", 5)
        separable = fastconv.convolution.separable.tables
        for name in ("_ROWS_BYTES", "_MOST_ROWS_BYTES", "_PLANES_BYTES"):
            monkeypatch.setattr(separable, name, 1)
        for name, value in {"_WIDE": 5, "_DEEP": 2}.items():
            monkeypatch.setattr(separable, name, value)
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


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(params=_isa.usable())
def isa(request, monkeypatch):
    """Runs the test with every instruction set of this machine."""
    monkeypatch.setattr("fastconv.runtime.isa.current", _isa.NAMES.index(request.param))
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    return request.param


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
