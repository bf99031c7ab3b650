"""The correction of the cost model's estimates by the sizes of a case."""

import math
from pathlib import Path

import numpy as np
import pytest
from cases import cost_of, plan_of

import fastconv
from fastconv.convolution import choose
from fastconv.convolution.cost import correction, counts, rates
from fastconv.convolution.cost.correction import FEATURES, Correction, Trees
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.plan import Case
from fastconv.runtime import isa

FLOAT = np.dtype(np.float32)


def layer(filters=16):
    """Two groups of 8 filters of 4 channels, 2 x 2 taps, 8 x 8 outputs, two images, strides of 2."""
    return fastconv.conv_geometry((2, 8, 16, 16), (filters, 4, 2, 2), stride=2, groups=2)


def by_filters(low, high):
    """One tree of one level: `low` for at most 8 filters in a group, and `high` for more."""
    return Correction({"implicit": Trees([[FEATURES.index("filters")]], [[3.0]], [[low, high]])})


def test_features_are_binary_logarithms_of_sizes():
    case = Case.of("forward", layer(), FLOAT, 2, 0.25)
    found = dict(zip(FEATURES, correction.features(case), strict=True))
    nbytes = 4 * (2 * 8 * 16 * 16 + 16 * 4 * 2 * 2 + 2 * 16 * 8 * 8)
    sizes = {"filters": 8, "channels": 4, "taps": 4, "positions": 64, "images": 2, "groups": 2, "width": 8}
    sizes |= {"stride": 4, "threads": 2, "itemsize": 4, "rows": 16, "cells": 256, "row taps": 2, "bytes": nbytes}
    sizes["multiply-adds"] = 2 * 16 * 64 * 16
    plain = {"forward": 1, "backward_data": 0, "rank": 2, "padded": 0, "density": 0.25}
    assert found == pytest.approx({name: math.log2(size) for name, size in sizes.items()} | plain)


def test_a_tree_is_a_table_whose_index_has_a_digit_for_each_comparison():
    trees = Trees([[0, 1], [2, 2]], [[1.0, 5.0], [0.0, 3.0]], [[0.5, 1, 2, 4], [8, 16, 32, 64]])
    # A value at a threshold is not larger.
    for values, expected in (((1, 5, 0), 0.5 + 8), ((1, 6, 1), 1 + 32), ((2, 5, 4), 2 + 64), ((2, 6, 0), 4 + 8)):
        assert trees.value(np.array(values, float)) == expected


def test_a_factor_is_the_bounded_exponential_of_the_trees():
    few, many = (Case.of("forward", layer(filters), FLOAT, 2) for filters in (16, 32))
    fitted = by_filters(-0.25, 0.5)
    assert fitted.factor("implicit", few) == pytest.approx(math.exp(-0.25))
    assert fitted.factor("implicit", many) == pytest.approx(math.exp(0.5))
    assert fitted.factor("fft", many) == correction.NONE.factor("implicit", many) == 1
    for value, bound in ((100.0, correction.MOST), (-100.0, 1 / correction.MOST)):
        assert by_filters(value, value).factor("implicit", few) == pytest.approx(bound)


def test_costs_and_choices_are_corrected(monkeypatch):
    monkeypatch.setitem(rates._loaded, isa.kind(), rates.measured())
    geometry = layer()
    plain = rates.measured().rates
    cost = {}
    for value in (0.0, 0.5):
        rates.use(rates.Measured(plain, 3.0, by_filters(value, value)))
        cost[value] = cost_of("implicit", Case.of("forward", geometry, FLOAT, 2))
    assert cost[0.0] == seconds("implicit", "forward", plan_of("implicit", Case.of("forward", geometry, FLOAT, 2)).work)
    assert cost[0.5] / cost[0.0] == pytest.approx(math.exp(0.5))
    # Two algorithms of equal cost: a correction decides.
    rates.use(rates.Measured(plain, 3.0))
    case = Case.of("forward", geometry, FLOAT, 1)
    costs = {name: cost_of(name, case) for name in ("implicit", "depthwise")}
    scaled = {
        name: {"forward": {kind: rate / costs[name] for kind, rate in plain[name]["forward"].items()}} for name in costs
    }
    for value, expected in ((-0.1, "implicit"), (0.1, "depthwise")):
        rates.use(rates.Measured(scaled, 3.0, by_filters(value, value)))
        assert choose.choose(case).algorithm == expected


@pytest.mark.parametrize("kind", rates.kinds())
def test_files_have_trees_of_known_features(kind):
    found = rates.measured_on(kind)
    for name, trees in found.correction.trees.items():
        assert name in found.rates
        count, depth = trees.features.shape
        assert trees.thresholds.shape == (count, depth) and trees.leaves.shape == (count, 1 << depth)
        assert 0 <= trees.features.min() and trees.features.max() < len(FEATURES)
        assert np.isfinite(trees.thresholds).all() and np.isfinite(trees.leaves).all()


def test_files_are_small_because_wheels_contain_them():
    assert all((Path(rates.FOLDER) / f"{kind}.json").stat().st_size < 1 << 16 for kind in rates.kinds())


def test_pairs_of_results_are_counted():
    """A row of 32 results in vectors of 8 is two tiles of two vectors; four rows share what they load."""
    assert counts.pair(1, 32, 8) == (2 * 2 * 3, 2)
    assert counts.pair(4, 32, 8) == (pytest.approx(2 * 2 * 4 * 2 / 1.4), 2)


def test_only_plans_that_skip_zeros_are_corrected_by_the_density(monkeypatch):
    monkeypatch.setitem(rates._loaded, isa.kind(), rates.measured())
    plain = rates.measured().rates
    case = Case.of("forward", layer(), FLOAT, 1, 0.25)
    by_density = Trees([[FEATURES.index("density")]], [[0.5]], [[0.4, 0.0]])
    costs = []
    for correction_in_use in (correction.NONE, Correction(dict.fromkeys(("implicit", "sparse"), by_density))):
        rates.use(rates.Measured(plain, 3.0, correction_in_use))
        costs.append({name: cost_of(name, case) for name in ("implicit", "sparse")})
    assert costs[1]["implicit"] == costs[0]["implicit"]
    assert costs[1]["sparse"] == pytest.approx(math.exp(0.4) * costs[0]["sparse"])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_matrix_times_a_vector_reads_the_matrix_once_by_all_threads(threads):
    geometry = fastconv.conv_geometry((1, 1, 20, 20), (16, 1, 1, 1))
    work = plan_of("im2col", Case.of("backward_weights", geometry, FLOAT, threads)).work
    assert work["vector"] == 16 * 400 / threads
    assert work["product"] == work["filters"] == work["rows"] == work["positions"] == 0
    assert work["bytes"] == work["vector_far"] == 0
    geometry = fastconv.conv_geometry((1, 1, 1024, 1024), (16, 1, 1, 1))
    work = plan_of("im2col", Case.of("backward_weights", geometry, FLOAT, threads)).work
    assert work["vector_far"] == 4 * 16 * 1024**2 / threads - (1 << 20)
