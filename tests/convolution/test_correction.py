"""The correction of the cost model's estimates by the sizes of a case."""

import math

import numpy as np
import pytest
from cases import cost_of, plan_of

import fastconv
from fastconv.convolution import choose
from fastconv.convolution.cost import correction, counts, rates
from fastconv.convolution.cost.correction import Correction
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.ops import OPS
from fastconv.convolution.plan import Case
from fastconv.runtime import isa

FLOAT = np.dtype(np.float32)
#: Ranges in which the sizes of `layer` are at the middle, but for the filters, which are at the end.
RANGES = ((1, 3), (1, 3), (2, 2), (0, 12), (0, 2), (0, 2), (2, 4), (0, 4), (0, 2), (1, 3))


def layer(filters=16):
    """Two groups of 8 filters of 4 channels, 2 x 2 taps, 8 x 8 outputs, two images, strides of 2."""
    return fastconv.conv_geometry((2, 8, 16, 16), (filters, 4, 2, 2), stride=2, groups=2)


def one_term(index, value):
    count = len(correction.terms([0.0] * len(RANGES), RANGES))
    return {"implicit": {"forward": [value if i == index else 0.0 for i in range(count)]}}


def test_sizes_are_binary_logarithms():
    assert correction.sizes(layer(), FLOAT, 2) == (3, 2, 2, 6, 1, 1, 3, 2, 1, 2)
    assert len(correction.SIZES) == len(RANGES) == 10


def test_terms_are_scaled_and_products_of_two():
    # -1 and 0.5 of their ranges, a range of one value, and one beyond its range
    found = correction.terms([2, 7, 5, 9], [(2, 4), (4, 8), (5, 5), (0, 3)])
    assert found == [-1, 0.5, 0, 1] + [1, -0.5, 0, -1] + [0.25, 0, 0.5] + [0, 0] + [1]


def test_a_factor_is_the_bounded_exponential_of_the_terms():
    sizes = dict.fromkeys(("forward", "backward_data"), 1.0)
    # The filters are at the end of their range: their term is 1.
    fitted = Correction(RANGES, one_term(0, 0.5))
    limit = math.log(3)
    expected = 3 ** math.tanh(0.5 / limit)
    assert fitted.factor("implicit", "forward", layer(), FLOAT, 2) == pytest.approx(expected)
    for op in sizes:
        assert fitted.factor("fft", op, layer(), FLOAT, 2) == 1
    assert fitted.factor("implicit", "backward_data", layer(), FLOAT, 2) == 1
    # Beyond the range it stays.
    assert fitted.factor("implicit", "forward", layer(512), FLOAT, 2) == pytest.approx(expected)
    # The channels are at the middle of theirs.
    assert Correction(RANGES, one_term(1, 0.5)).factor("implicit", "forward", layer(), FLOAT, 2) == 1
    for value, bound in ((100.0, 3), (-100.0, 1 / 3)):
        fitted = Correction(RANGES, one_term(0, value))
        assert fitted.factor("implicit", "forward", layer(), FLOAT, 2) == pytest.approx(bound)
    assert correction.NONE.factor("implicit", "forward", layer(), FLOAT, 2) == 1


def test_costs_and_choices_are_corrected(monkeypatch):
    monkeypatch.setitem(rates._loaded, isa.kind(), rates.measured())
    geometry = layer()
    plain = rates.measured().rates
    cost = {}
    for value in (0.0, 0.5):
        rates.use(rates.Measured(plain, 3.0, Correction(RANGES, one_term(0, value))))
        cost[value] = cost_of("implicit", Case.of("forward", geometry, FLOAT, 2))
    assert cost[0.0] == seconds("implicit", "forward", plan_of("implicit", Case.of("forward", geometry, FLOAT, 2)).work)
    assert cost[0.5] / cost[0.0] == pytest.approx(3 ** math.tanh(0.5 / math.log(3)))
    # Two algorithms of nearly equal cost: a correction decides.
    costs = {
        name: cost_of(name, Case.of("forward", geometry, FLOAT, 1)) / (cost[0.5] / cost[0.0]) ** (name == "implicit")
        for name in ("implicit", "depthwise")
    }
    scaled = {
        name: {"forward": {kind: rate / costs[name] for kind, rate in plain[name]["forward"].items()}} for name in costs
    }
    for value, expected in ((-0.1, "implicit"), (0.1, "depthwise")):
        rates.use(rates.Measured(scaled, 3.0, Correction(RANGES, one_term(0, value))))
        assert choose.choose(Case.of("forward", geometry, FLOAT, 1)).algorithm == expected


@pytest.mark.parametrize("kind", rates.kinds())
def test_files_have_a_coefficient_for_each_term(kind):
    found = rates.measured_on(kind)
    fitted = found.correction
    count = len(correction.terms([0.0] * len(correction.SIZES), [(0, 1)] * len(correction.SIZES)))
    assert count == 65
    if fitted is not correction.NONE:
        assert len(fitted.ranges) == len(correction.SIZES) and all(low <= high for low, high in fitted.ranges)
    for name, ops in fitted.coefficients.items():
        assert set(ops) <= set(found.rates[name]) <= set(OPS)
        for coefficients in ops.values():
            assert len(coefficients) == count and all(map(math.isfinite, coefficients))


def test_pairs_of_results_are_counted():
    """A row of 32 results in vectors of 8 is two tiles of two vectors; four rows share what they load."""
    assert counts.pair(1, 32, 8) == (2 * 2 * 3, 2)
    assert counts.pair(4, 32, 8) == (pytest.approx(2 * 2 * 4 * 2 / 1.4), 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_matrix_times_a_vector_reads_the_matrix_once_by_all_threads(threads):
    geometry = fastconv.conv_geometry((1, 1, 20, 20), (16, 1, 1, 1))
    work = plan_of("im2col", Case.of("backward_weights", geometry, FLOAT, threads)).work
    assert work["vector"] == 16 * 400 / threads
    assert work["product"] == work["filters"] == work["rows"] == work["positions"] == 0
    assert work["bytes"] == 4 * (400 + 16 + 16 * 400) / threads
