"""The table of geometries on which every algorithm, op and dtype is tested."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from hypothesis import strategies as st

import fastconv
from fastconv import conv_geometry
from fastconv.convolution import wrappers
from fastconv.convolution.base import Delegated
from fastconv.convolution.cost import pricing
from fastconv.convolution.plan import Case as PlanCase

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
#: Algorithms that multiply transforms, and the factor by which their errors may be larger.
TRANSFORMS = {"fft": 1.0, "winograd": 4.0}
OPS = ("forward", "backward_data", "backward_weights")


@contextlib.contextmanager
def in_case(name):
    """Adds the name of a case to the message of an exception, for tests that loop over cases."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {name}")
        raise


def outer_products(w):
    """Outer products with the shape of w; the first columns, rows and so on of w are the factors."""
    made = np.ones(w.shape)
    for axis in range(2, w.ndim):
        at = tuple(slice(None) if i in (0, 1, axis) else slice(1) for i in range(w.ndim))
        made = made * w[at]
    return made.astype(w.dtype)


def kernels_for(algorithm, w):
    """Kernels with the shape of w: w itself, or outer products if the algorithm requires them."""
    return outer_products(w) if algorithm == "separable" else w


@dataclass(frozen=True, eq=False)
class Case:
    """A geometry; the oracle's windows and results for it are computed once in a process, because many tests use them."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def arrays(self, dtype=np.float64, seed=0, algorithm="auto"):
        """x, w and b, with kernels that the algorithm accepts."""
        rng = np.random.default_rng(seed)
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (self.x, self.w, self.w[:1]))
        return x, kernels_for(algorithm, w), b

    @property
    def geometry(self):
        return conv_geometry(self.x, self.w, **self.options)

    def gradient(self, dtype=np.float64):
        """dout for the arrays of this case."""
        return np.random.default_rng(2).standard_normal(self.geometry.out_shape).astype(dtype)

    @property
    def shared(self):
        """The options that the functions of the oracle take by name."""
        return {"groups": self.options.get("groups", 1), "flip": self.options.get("flip", False)}

    def table(self):
        """The windows of the oracle; the pads are given as numbers."""
        return _table(self)

    def expected(self, dtype=np.float64, algorithm="auto"):
        """The results of the oracle for `arrays` and `gradient`."""
        return _expected(self, dtype, algorithm == "separable")


class Expected(NamedTuple):
    out: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


def read_only(*arrays):
    for array in arrays:
        array.flags.writeable = False
    return arrays


@functools.cache
def _table(case):
    axes = case.geometry.axes
    table, out = oracle.windows(
        case.x[2:],
        case.w[2:],
        [a.stride for a in axes],
        [(a.lo, a.hi) for a in axes],
        [a.dilation for a in axes],
        case.options.get("pad_mode", "zeros"),
    )
    return *read_only(table), out


@functools.cache
def _expected(case, dtype, rank_one):
    x, w, b = case.arrays(dtype, algorithm="separable" if rank_one else "auto")
    table, out_spatial = case.table()
    out = oracle.conv(x, w, b, table, out_spatial, **case.shared)
    return Expected(*read_only(out, *oracle.conv_gradients(x, w, case.gradient(dtype), table, **case.shared)))


CASES = [
    Case("1d", (2, 3, 9), (4, 3, 3)),
    Case("1d_dilated_strided", (2, 3, 17), (4, 3, 3), {"stride": 2, "pad": 4, "dilation": 3}),
    Case("1d_full_flip", (1, 1, 6), (1, 1, 4), {"pad": "full", "flip": True}),
    Case("1d_groups", (3, 4, 8), (6, 2, 3), {"pad": 1, "groups": 2}),
    Case("2d_3x3", (2, 3, 7, 7), (4, 3, 3, 3)),
    Case("2d_same", (2, 3, 7, 6), (4, 3, 3, 3), {"pad": "same"}),
    Case("2d_same_even_kernel", (2, 2, 6, 5), (3, 2, 4, 2), {"pad": "same", "stride": 2}),
    Case("2d_same_lower", (2, 2, 6, 5), (3, 2, 4, 2), {"pad": "same_lower", "stride": (1, 3)}),
    Case("2d_full", (1, 2, 4, 5), (3, 2, 3, 2), {"pad": "full", "dilation": (1, 2)}),
    Case("2d_non_square", (2, 2, 9, 5), (3, 2, 1, 5), {"pad": (0, 2)}),
    Case("2d_asymmetric", (2, 2, 6, 7), (3, 2, 3, 3), {"pad": [(2, 0), (1, 3)], "stride": (2, 1)}),
    Case("2d_pad_at_least_kernel", (1, 2, 4, 4), (2, 2, 2, 3), {"pad": 4}),
    Case("2d_pad_beyond_image", (1, 1, 2, 2), (1, 1, 3, 3), {"pad": 6, "stride": 3}),
    Case("2d_stride_over_kernel", (2, 2, 11, 10), (3, 2, 2, 2), {"stride": 4}),
    Case("2d_strides", (2, 3, 12, 13), (4, 3, 3, 3), {"stride": (4, 3), "pad": 2}),
    Case("2d_huge_stride", (2, 3, 5, 5), (4, 3, 3, 3), {"stride": 10**30}),
    Case("2d_dilated", (2, 2, 9, 9), (3, 2, 3, 2), {"dilation": (2, 3), "pad": (2, 1)}),
    Case("2d_dilated_apart", (3, 4, 11, 10), (6, 2, 3, 3), {"dilation": (3, 2), "pad": [(3, 1), (2, 5)], "groups": 2}),
    Case("2d_dilated_beyond", (2, 2, 5, 4), (3, 2, 3, 3), {"dilation": 6, "pad": 6}),
    Case("3d_dilated_apart", (2, 2, 5, 6, 7), (3, 2, 3, 3, 3), {"dilation": 2, "pad": 2}),
    Case("2d_long_sums", (1, 31, 6, 7), (5, 31, 3, 3), {"pad": 1}),
    Case("2d_few_positions", (2, 90, 4, 5), (21, 90, 1, 1)),
    Case("2d_narrow_planes", (4, 5, 14, 13), (9, 5, 5, 4)),
    Case("2d_pointwise", (3, 4, 5, 6), (5, 4, 1, 1)),
    Case("2d_pointwise_strided", (3, 4, 5, 6), (5, 4, 1, 1), {"stride": 2}),
    Case("2d_pointwise_padded", (2, 4, 5, 6), (5, 4, 1, 1), {"pad": [(0, 1), (0, 0)]}),
    Case("2d_pointwise_groups", (2, 4, 5, 6), (6, 2, 1, 1), {"groups": 2}),
    Case("2d_whole_image", (2, 3, 4, 5), (6, 3, 4, 5)),
    Case("2d_groups", (2, 6, 6, 6), (4, 3, 3, 3), {"groups": 2, "pad": 1}),
    Case("2d_depthwise", (2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "pad": 1}),
    Case("2d_depthwise_multiplier", (2, 3, 6, 7), (6, 1, 3, 3), {"groups": 3, "stride": 2}),
    Case("2d_depthwise_strides", (2, 3, 17, 19), (6, 1, 5, 3), {"groups": 3, "stride": (2, 3), "pad": (2, 1)}),
    Case("2d_depthwise_stride_2", (3, 5, 17, 17), (5, 1, 3, 3), {"groups": 5, "stride": 2, "pad": 1}),
    Case("2d_depthwise_stride_2_even", (1, 2, 36, 36), (2, 1, 5, 5), {"groups": 2, "stride": 2, "pad": 2}),
    Case("2d_depthwise_5x5", (2, 3, 14, 33), (3, 1, 5, 5), {"groups": 3, "pad": 2}),
    Case("2d_depthwise_dilated", (2, 3, 17, 20), (3, 1, 3, 3), {"groups": 3, "dilation": (2, 3), "pad": (2, 3)}),
    Case("2d_depthwise_asymmetric", (2, 3, 9, 3), (6, 1, 3, 2), {"groups": 3, "pad": [(2, 0), (0, 5)]}),
    Case("2d_depthwise_one_cell", (2, 3, 1, 1), (3, 1, 3, 3), {"groups": 3, "pad": 1}),
    Case("2d_depthwise_two_cells", (2, 4, 2, 2), (4, 1, 3, 3), {"groups": 4, "pad": 1, "stride": 2}),
    Case("2d_depthwise_no_taps_of_some", (2, 3, 9, 9), (3, 1, 1, 2), {"groups": 3, "stride": 2}),
    Case("2d_depthwise_flip", (2, 3, 7, 7), (3, 1, 3, 3), {"groups": 3, "pad": 1, "flip": True}),
    Case("2d_depthwise_reflect", (2, 3, 7, 5), (3, 1, 3, 3), {"groups": 3, "pad": 1, "pad_mode": "reflect"}),
    Case("2d_small_groups", (2, 12, 10, 18), (24, 4, 3, 3), {"groups": 3, "pad": 1}),
    Case("2d_small_groups_stride_2", (2, 6, 9, 11), (9, 2, 3, 3), {"groups": 3, "pad": 1, "stride": 2}),
    Case("1d_depthwise", (2, 3, 333), (6, 1, 7), {"groups": 3, "pad": 3}),
    Case(
        "1d_depthwise_dilated_strided",
        (2, 3, 70),
        (3, 1, 5),
        {"groups": 3, "dilation": 4, "stride": 2, "pad": [(5, 9)]},
    ),
    Case("3d_depthwise", (2, 3, 5, 6, 17), (3, 1, 3, 3, 3), {"groups": 3, "pad": 1}),
    Case(
        "3d_depthwise_strided",
        (1, 2, 5, 6, 7),
        (4, 1, 3, 2, 3),
        {"groups": 2, "stride": 2, "pad": [(1, 1), (0, 1), (2, 1)]},
    ),
    Case("2d_flip_groups", (2, 4, 6, 6), (4, 2, 3, 2), {"groups": 2, "flip": True}),
    Case("2d_reflect", (2, 2, 5, 6), (3, 2, 3, 4), {"pad": [(2, 1), (3, 4)], "pad_mode": "reflect"}),
    Case("2d_replicate", (2, 2, 5, 6), (3, 2, 3, 4), {"pad": [(7, 1), (3, 4)], "pad_mode": "replicate", "stride": 2}),
    Case("2d_circular", (2, 2, 5, 6), (3, 2, 3, 4), {"pad": [(5, 1), (3, 6)], "pad_mode": "circular"}),
    Case("2d_circular_flip", (1, 2, 5, 6), (3, 2, 3, 3), {"pad": "same", "pad_mode": "circular", "flip": True}),
    Case("2d_many_images", (40, 2, 6, 6), (3, 2, 3, 3), {"pad": 1}),
    Case("3d", (2, 2, 5, 4, 6), (3, 2, 3, 2, 3)),
    Case(
        "3d_everything",
        (2, 4, 6, 7, 8),
        (4, 2, 2, 3, 1),
        {"stride": (2, 1, 3), "pad": [(1, 0), (2, 2), (0, 1)], "dilation": (2, 1, 1), "groups": 2},
    ),
    Case("3d_same", (1, 2, 4, 5, 3), (3, 2, 3, 3, 3), {"pad": "same"}),
    Case("3d_reflect", (1, 2, 4, 5, 3), (2, 2, 2, 3, 2), {"pad": (1, 2, 2), "pad_mode": "reflect"}),
    Case("3d_circular", (1, 2, 4, 3, 3), (2, 2, 2, 3, 2), {"pad": (2, 3, 1), "pad_mode": "circular", "stride": 2}),
    Case("1d_long", (1, 2, 700), (2, 2, 3), {"pad": 1}),
    Case("2d_long_rows", (1, 1, 3, 400), (2, 1, 2, 3), {"pad": 1}),
    Case("2d_many_rows", (1, 2, 40, 70), (2, 2, 3, 3), {"pad": 1, "stride": (2, 1)}),
    Case("2d_many_taps", (2, 1, 12, 12), (2, 1, 9, 9), {"pad": 4}),
    Case("3d_one_deep_in_padding", (2, 2, 1, 3, 4), (3, 2, 1, 2, 2), {"stride": (3, 1, 1), "pad": (1, 0, 1)}),
    Case("3d_one_deep", (2, 2, 1, 5, 4), (3, 2, 1, 3, 3), {"pad": (0, 1, 1)}),
    Case("2d_one_high_in_padding", (2, 2, 1, 4), (3, 2, 1, 2), {"stride": (3, 1), "pad": 1}),
    # More filters and channels than a vector has lanes, and kernels that have a minimal filtering.
    Case("1d_k3_wide", (2, 20, 23), (35, 20, 3), {"pad": 1}),
    Case("1d_k5_wide", (2, 9, 30), (17, 9, 5), {"pad": [(4, 1)]}),
    Case("2d_k3_wide", (2, 20, 9, 14), (35, 20, 3, 3), {"pad": 1}),
    Case("2d_k3_groups", (3, 34, 7, 7), (40, 17, 3, 3), {"pad": "full", "groups": 2}),
    Case("2d_k3_tiny", (9, 5, 2, 1), (7, 5, 3, 3), {"pad": 1}),
    Case("2d_k5_wide", (2, 18, 11, 10), (19, 18, 5, 5), {"pad": [(2, 2), (0, 5)], "flip": True}),
    Case("2d_k1x3", (2, 5, 6, 13), (18, 5, 1, 3), {"pad": (0, 1)}),
    Case("2d_k3x1", (2, 5, 13, 6), (18, 5, 3, 1), {"pad": (2, 0)}),
    Case("2d_k1x5", (1, 5, 6, 13), (6, 5, 1, 5)),
    Case("2d_k5x1", (1, 5, 13, 6), (6, 5, 5, 1), {"pad": (3, 0)}),
    Case("3d_k3_wide", (2, 5, 4, 6, 9), (18, 5, 3, 3, 3), {"pad": 1}),
    Case("3d_k5_deep", (1, 4, 7, 5, 5), (5, 4, 2, 5, 5), {"pad": (1, 2, 2)}),
    # Kernels and strides for which minimal filtering decomposes the kernel.
    Case("1d_k11", (2, 4, 40), (9, 4, 11), {"pad": 5}),
    Case("2d_k4", (2, 9, 10, 13), (17, 9, 4, 4), {"pad": [(1, 2), (2, 1)]}),
    Case("2d_k7", (1, 3, 17, 12), (18, 3, 7, 7), {"pad": 3}),
    Case("2d_k7_stride_2", (2, 3, 23, 20), (18, 3, 7, 7), {"stride": 2, "pad": 3}),
    Case("2d_k3_stride_2", (2, 19, 12, 11), (18, 19, 3, 3), {"stride": 2, "pad": [(1, 0), (0, 2)]}),
    Case("2d_k5x3_strides", (2, 5, 14, 17), (9, 5, 5, 3), {"stride": (2, 1), "pad": (2, 1)}),
    Case("3d_k3_stride_2", (2, 3, 7, 9, 10), (9, 3, 3, 3, 3), {"stride": 2, "pad": 1}),
    Case("3d_k3x1x1", (2, 5, 6, 3, 4), (9, 5, 3, 1, 1), {"pad": (1, 0, 0)}),
    Case("2d_pointwise_wide", (3, 50, 5, 5), (70, 50, 1, 1)),
    Case("2d_pointwise_strided", (2, 21, 9, 8), (33, 21, 1, 1), {"stride": 2}),
    Case("2d_one_position", (5, 40, 3, 3), (70, 40, 3, 3)),
    Case("2d_one_image_one_position", (1, 40, 1, 1), (70, 40, 1, 1)),
    Case("2d_stride_4", (1, 3, 39, 43), (20, 3, 11, 11), {"stride": 4}),
    # Images so narrow that a stride phase of a row, but not the last one, lies in the padding only.
    Case("1d_phase_in_padding", (2, 7, 2), (14, 1, 3), {"stride": 3, "pad": [(2, 4)], "groups": 7}),
    Case("2d_phase_in_padding", (1, 2, 2, 2), (2, 2, 3, 3), {"stride": 3, "pad": 2}),
    Case("2d_narrow", (2, 3, 36, 2), (7, 3, 4, 2), {"stride": (2, 3), "dilation": (1, 2), "pad": [(4, 1), (1, 3)]}),
    Case("1d_no_output_sees_the_image", (1, 1, 1), (1, 1, 1), {"stride": 2, "pad": [(1, 3)]}),
    Case("2d_no_output_sees_the_image", (2, 3, 1, 4), (3, 3, 1, 2), {"stride": (2, 1), "pad": [(1, 3), (0, 0)]}),
    Case("empty_batch", (0, 3, 7, 7), (4, 3, 3, 3), {"pad": 1}),
    Case("empty_batch_circular", (0, 3, 7, 7), (4, 3, 3, 3), {"pad": 1, "pad_mode": "circular"}),
    Case("empty_image", (2, 3, 0, 4), (4, 3, 3, 3), {"pad": 2}),
]
BY_NAME = {case.name: case for case in CASES}


def registry():
    return fastconv.convolution.choose.REGISTRY


def plan_of(algorithm, case):
    """The plan by which `choose` compares an algorithm with others."""
    return wrappers.padded(case, registry()[algorithm].plan)


def cost_of(algorithm, case):
    return pricing.cost(plan_of(algorithm, case))


def set_cost(monkeypatch, algorithm, value):
    """Give all plans of an algorithm this cost."""
    cost = pricing.cost
    monkeypatch.setattr(pricing, "cost", lambda plan: value if plan.algorithm == algorithm else cost(plan))


def refused(algorithm, case):
    """The reason why an algorithm refuses a case; None if it computes the case, or leaves it to other algorithms."""
    why = registry()[algorithm].unsupported(case)
    return None if isinstance(why, Delegated) else why


def reason(algorithm, geometry, dtype=np.float64):
    """The reason why an algorithm cannot compute a geometry; None if it can compute all three ops."""
    if algorithm == "auto":
        return None
    reasons = (refused(algorithm, PlanCase.of(op, geometry, np.dtype(dtype))) for op in OPS)
    return next(filter(None, reasons), None)


def pairs(algorithms, among=CASES):
    """Each algorithm with the cases that it computes, which do not depend on the dtype."""
    found = [(name, case) for name in algorithms for case in among if _supports(name, case)]
    assert {name for name, _ in found} == set(algorithms)
    return found


@functools.cache
def _supports(algorithm, case):
    return reason(algorithm, case.geometry) is None


def supported(algorithms, among=CASES):
    """Parametrizes a test by the pairs of `algorithm` and `case`."""
    found = pairs(algorithms, among)
    return pytest.mark.parametrize(("algorithm", "case"), found, ids=[f"{name}-{case.name}" for name, case in found])


def close(actual, expected, dtype, algorithm="auto"):
    assert actual.dtype == dtype
    assert actual.flags.c_contiguous and actual.flags.aligned and actual.dtype.isnative
    scale = max(1.0, np.abs(expected).max(initial=0.0)) * TRANSFORMS.get(algorithm, 1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def variants(a):
    """The same array in every memory layout that fastconv has to accept."""
    spread = np.zeros(tuple(2 * s for s in a.shape), a.dtype)
    strided = spread[tuple(slice(None, None, 2) for _ in a.shape)]
    strided[...] = a
    frozen = a.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    return {
        "fortran": np.asfortranarray(a),
        "strided": strided,
        "reversed": a[::-1].copy()[::-1],
        "read_only": frozen,
        "byte_swapped": a.astype(a.dtype.newbyteorder()),
        "unaligned": unaligned,
        "list": a.tolist() if a.dtype == np.float64 else a,
    }


@st.composite
def geometries(draw):
    rank = draw(st.integers(1, 3))

    def ints(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    groups = draw(st.integers(1, 3))
    # Half of the images are narrow, because whole stride phases and taps may then lie in the padding.
    spatial, kernel = ints(1, draw(st.sampled_from([3, 7 if rank < 3 else 5]))), ints(1, 3)
    x = (draw(st.integers(0, 3)), groups * draw(st.integers(1, 2)), *spatial)
    w = (groups * draw(st.integers(1, 2)), x[1] // groups, *kernel)
    options = {
        "stride": ints(1, 4),
        "pad": draw(
            st.sampled_from(["valid", "same", "same_lower", "full"])
            | st.just(0)
            | st.builds(lambda a, b: tuple(zip(a, b, strict=True)), st.just(ints(0, 4)), st.just(ints(0, 4)))
        ),
        "dilation": ints(1, 3),
        "groups": groups,
        "pad_mode": draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        "flip": draw(st.booleans()),
    }
    return x, w, options


def pruned(w, share=0.6):
    """A copy of w with some weights set to zero, among them a whole filter."""
    w = w.copy()
    w[np.random.default_rng(8).random(w.shape) < share] = 0
    w[0] = 0
    return w
