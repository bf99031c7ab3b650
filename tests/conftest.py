"""Fixtures and settings shared by all tests."""

import sys

import numpy as np
import pytest
from hypothesis import settings

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
        monkeypatch.setattr("fastconv.layers._pool_kernels._BLOCK_OUTPUTS", 5)
        monkeypatch.setattr("fastconv.layers._pool_tables.BLOCK_ELEMENTS", 90)
        monkeypatch.setattr(algorithms, "_EXTENDED_BYTES", 1)
        monkeypatch.setattr(im2col, "_images_a_block", lambda g, _: 1 if g.pointwise else min(3, g.x_shape[0]))
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(1)
