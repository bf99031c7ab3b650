"""A new algorithm is one module and one line of the registry. It then runs, and is explained and tested as all are."""

from functools import cached_property

import numpy as np
import pytest
from cases import CASES
from conftest import forget_geometries

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_transpose
from fastconv.convolution import choose as choosing
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.plan import OPS, Case, Case as PlanCase, Plan


class Toy(Algorithm):
    """For each tap, one product of its weights with all cells; kernels of more than 199 taps are refused."""

    name = "toy"

    def unsupported(self, case):
        return "it takes at most 199 taps" if case.geometry.taps > 199 else None

    def plan(self, case):
        return ToyPlan(case)


class ToyPlan(Plan):
    """The definition: a slice of the padded image for each tap."""

    algorithm = "toy"

    @cached_property
    def workspace_bytes(self):
        return 3 * int(np.prod(self.case.geometry.padded.x_shape)) * 8

    @cached_property
    def work(self):
        return {"product": self.case.geometry.flops, "call": 1}

    def run(self, first, second, third, result):
        geometry, op = self.case.geometry, self.case.op
        groups, pads = geometry.groups, ((0, 0), (0, 0), *geometry.pads)
        image = np.zeros(geometry.padded.x_shape) if op == "backward_data" else np.pad(first, pads).astype(float)
        total = np.zeros(result.shape)
        for tap in np.ndindex(*geometry.kernel):
            at = (slice(None), slice(None)) + tuple(
                slice(t * a.dilation, t * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
                for t, a in zip(tap, geometry.axes, strict=True)
            )
            for g in range(groups):
                f, c = (slice(g * n // groups, (g + 1) * n // groups) for n in (geometry.w_shape[0], image.shape[1]))
                w_at, cells = (f, slice(None), *tap), (at[0], c, *at[2:])
                if op == "forward":
                    total[:, f] += np.einsum("nc...,fc->nf...", image[cells], second[w_at])
                elif op == "backward_data":
                    image[cells] += np.einsum("nf...,fc->nc...", first[:, f], second[w_at])
                else:
                    flat = (a.reshape(*a.shape[:2], -1) for a in (second[:, f], image[cells]))
                    total[w_at] += np.einsum("nfl,ncl->fc", *flat)
        if op == "backward_data":
            total = image[(..., *(slice(a.lo, a.lo + a.size) for a in geometry.axes))]
        result[...] = total
        if third is not None and op != "backward_weights":
            result += third.reshape(-1, *(1,) * geometry.rank)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(choosing.REGISTRY, "toy", Toy())  # This is the one line.
    forget_geometries()
    yield choosing.REGISTRY["toy"]
    forget_geometries()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_serves_every_geometry(case, rng):
    """The wrappers handle flips, borders, dilations, strides, empty arrays and masks."""
    x, w, b = case.arrays()
    w.flat[::3] = 0
    found, cache = conv_forward(x, w, b, case.options, algorithm="toy")
    wanted, reference = conv_forward(x, w, b, case.options, algorithm="reference")
    dout = rng.standard_normal(found.shape)
    for pruned in (False, True):
        results = found, *conv_backward(dout, cache, pruned=pruned)
        expected = wanted, *conv_backward(dout, reference, pruned=pruned)
        for actual, exact in zip(results, expected, strict=True):
            np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-12 * max(1, np.abs(exact).max(initial=0)))
    np.testing.assert_array_equal(conv(x, w, b, algorithm="toy", **case.options), found)


def test_it_serves_transposed_convolutions(rng):
    x, w, b = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((3, 4, 3, 2)), rng.standard_normal(4)
    options = {"stride": 2, "output_pad": 1}
    wanted = conv_transpose(x, w, b, algorithm="reference", **options)
    np.testing.assert_allclose(conv_transpose(x, w, b, algorithm="toy", **options), wanted, rtol=0, atol=1e-12)


def test_it_is_refused_where_it_says_so():
    with pytest.raises(ValueError, match="algorithm 'toy' cannot do this forward: it takes at most 199 taps"):
        conv(np.ones((1, 1, 300)), np.ones((1, 1, 200)), algorithm="toy")
    assert "toy" in fastconv.algorithms()
    with pytest.raises(ValueError, match=r"legal are .*'toy'"):
        conv(np.ones((1, 1, 9)), np.ones((1, 1, 3)), algorithm="tyo")


def test_it_is_explained_and_unmeasured():
    """An algorithm without rates is not a candidate of 'auto', and raises no error."""
    for op in OPS:
        text = fastconv.explain((2, 8, 14, 14), (8, 8, 3, 3), op=op, pad=1)
        assert "it was not measured on this kind of CPU" in next(line for line in text.splitlines() if " toy " in line)
        assert "-> toy" not in text
    forced = fastconv.explain((2, 8, 14, 14), (8, 8, 3, 3), pad=1, pad_mode="reflect", flip=True, algorithm="toy")
    assert "-> toy, as requested" in forced and "the plan is flipped(padded(reflect, toy))" in forced.splitlines()


def test_with_rates_it_is_chosen_by_cost(monkeypatch):
    rates = _rates.in_use()
    monkeypatch.setitem(_rates._loaded, fastconv.runtime.isa.kind(), _rates.measured())
    _rates.use(_rates.Measured({**rates, "toy": {op: {"product": 1e-9, "call": 1.0} for op in OPS}}, 3.0))
    assert "-> toy, chosen by cost" in fastconv.explain((2, 8, 14, 14), (8, 8, 3, 3), pad=1)
    x, w = np.ones((2, 8, 14, 14)), np.ones((8, 8, 3, 3))
    np.testing.assert_array_equal(conv(x, w, pad=1), conv(x, w, pad=1, algorithm="toy"))


def test_cases_are_values():
    geometry = fastconv.conv_geometry((2, 8, 14, 14), (8, 8, 3, 3))
    case = Case.of("forward", geometry, np.dtype(np.float32), 2)
    assert Case is PlanCase and case == Case.of("forward", geometry.derive(), np.dtype(np.float32), 2)
    assert hash(case) == hash(Case.of("forward", geometry.derive(), np.dtype(np.float32), 2))
    assert case != Case.of("forward", geometry, np.dtype(np.float64), 2)
    with pytest.raises(AttributeError):
        case.threads = 3
