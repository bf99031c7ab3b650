"""Fixtures and settings shared by all tests."""

import sys

import numpy as np
import pytest
from hypothesis import settings

from fastconv import _isa

# Machines under load are slow at times; a deadline would report that as a defect.
settings.register_profile("fastconv", deadline=None, max_examples=60)
settings.load_profile("fastconv")


@pytest.fixture(params=["as they are", "tiny"])
def blocks(request, monkeypatch):
    """Every size at which work is cut into blocks, as it is, and so small that all cases of the table have many."""
    if request.param == "tiny":
        algorithms, im2col = sys.modules["fastconv.algorithms"], sys.modules["fastconv.algorithms.im2col"]
        monkeypatch.setattr("fastconv._threads.SERIAL_BYTES", 0)
        monkeypatch.setattr("fastconv.lowering._BLOCK_BYTES", 100)
        monkeypatch.setattr("fastconv.layers.pooling._BLOCK_OUTPUTS", 5)
        monkeypatch.setattr("fastconv.layers.pooling._INT32_CELLS", 0)
        monkeypatch.setattr(algorithms, "_EXTENDED_BYTES", 1)
        monkeypatch.setattr(im2col, "_images_a_block", lambda g, _: 1 if g.pointwise else min(3, g.x_shape[0]))
        depthwise, fft = sys.modules["fastconv.algorithms.depthwise"], sys.modules["fastconv.algorithms.fft"]
        monkeypatch.setattr(depthwise, "_BLOCK_BYTES", 200)
        monkeypatch.setattr(depthwise, "_TOTALS_BYTES", 200)
        monkeypatch.setattr(depthwise, "_WIDE_VECTORS", 1)
        monkeypatch.setattr(depthwise, "_HIGH", 1)
        monkeypatch.setattr(fft, "_SPACE_BYTES", 5000)
        monkeypatch.setattr(fft, "_SPANS", 1)
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(params=_isa.usable())
def isa(request, monkeypatch):
    """Every instruction set that this machine has."""
    monkeypatch.setattr("fastconv._isa.current", _isa.NAMES.index(request.param))
    return request.param
