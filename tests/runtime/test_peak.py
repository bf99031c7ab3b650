"""The loop by which benchmarks measure the machine does the work that it states."""

import numpy as np
import pytest

from fastconv._ext.simd import peak
from fastconv.runtime import isa as _isa, threads as _threads, workers as _workers


@pytest.mark.parametrize("dtype", [0, 1])
@pytest.mark.parametrize("isa", [i for i, name in enumerate(_isa.NAMES) if name in _isa.usable()])
def test_every_item_is_done_once(dtype, isa):
    alone, sums = np.zeros(1), np.zeros(2)
    peak.multiply_add(5, dtype, isa, alone, _workers.serial_queue())
    assert alone[0] > 0
    assert peak.operations(dtype, isa) > 0
    _threads.share(peak.multiply_add, (5, dtype, isa, sums), items=5, work=1 << 40, threads=2)
    assert sums.sum() == 5 * alone[0]
