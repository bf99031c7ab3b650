"""Fixtures and settings shared by all tests."""

import numpy as np
import pytest
from hypothesis import settings

# Machines under load are slow at times; a deadline would report that as a defect.
settings.register_profile("fastconv", deadline=None, max_examples=60)
settings.load_profile("fastconv")


@pytest.fixture
def rng():
    return np.random.default_rng(1)
