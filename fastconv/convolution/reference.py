"""The oracle: strided slices of the padded image, one per tap, summed in float64. Slow and obvious."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.convolution.base import Algorithm, add_bias
from fastconv.convolution.cost.model import multiply_adds, total_bytes
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry

#: The padded image and the result may take so many bytes, or so many times the bytes of arguments and result.
_MOST_BYTES, _MOST_TIMES = 1 << 28, 16


def _taps(geometry: ConvGeometry) -> Iterator[tuple[Any, Any]]:
    """For every tap its index in the weights, and the index of the cells that all outputs read there in the
    padded image.
    """
    for tap in itertools.product(*(range(k) for k in geometry.kernel)):
        slices = (
            slice(t * a.dilation, t * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
            for t, a in zip(tap, geometry.axes, strict=True)
        )
        yield (..., *tap), (..., *slices)


#: Seconds of a call and of a multiply-add.
_CALL, _PRODUCT = 1e-3, 2.5e-9


def _grouped(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """The channel axis split into (groups, channels of one)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


class Reference(Algorithm):
    """Per tap: out[n, f] += w[f, c, tap] * x[n, c, tap's slice], and its two adjoints."""

    name = "reference"

    def unsupported(self, case: Case) -> str | None:
        """Refuse padding that takes too much memory, which is possible if strides or taps skip most of it."""
        nbytes = ReferencePlan(case).workspace_bytes
        if nbytes > max(_MOST_BYTES, _MOST_TIMES * total_bytes(case.geometry, np.dtype(np.float64))):
            return f"the image with its padding would take {nbytes} bytes in float64; ask for 'im2col' or 'auto'"
        return None

    def plan(self, case: Case) -> Plan:
        """The loop over taps."""
        return ReferencePlan(case)

    def cost(self, case: Case) -> float:
        """A rough estimate for `explain`. 'auto' takes this algorithm only if no other serves."""
        return _CALL + _PRODUCT * multiply_adds(case.geometry)


class ReferencePlan(Plan):
    """Sums in float64, rounded once."""

    def __str__(self) -> str:
        return Reference.name

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of the padded image and the result, in float64."""
        geometry = self.case.geometry
        padded = math.prod(geometry.padded.x_shape)
        return 8 * (2 * padded + 2 * math.prod(geometry.out_shape) + 2 * math.prod(geometry.w_shape))

    @cached_property
    def work(self) -> Mapping[str, float]:
        """Multiply-adds."""
        return {"product": multiply_adds(self.case.geometry), "call": 1}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """By the op."""
        if self.case.op == "forward":
            self._forward(first, second, third, result)
        elif self.case.op == "backward_data":
            self._backward_data(first, second, result)
            add_bias(third, result)
        else:
            self._backward_weights(first, second, result)

    def _padded(self, x: np.ndarray) -> np.ndarray:
        geometry = self.case.geometry
        return _grouped(np.pad(x.astype(np.float64), ((0, 0), (0, 0), *geometry.pads)), 1, geometry.groups)

    def _forward(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        """Sum over taps, then bias, then one rounding to the result's dtype."""
        geometry, padded = self.case.geometry, self._padded(x)
        weights = _grouped(w.astype(np.float64), 0, geometry.groups)
        total = _grouped(np.zeros(out.shape), 1, geometry.groups)
        for tap, slices in _taps(geometry):
            total += np.einsum("ngc...,gfc->ngf...", padded[slices], weights[tap])
        total = total.reshape(out.shape)
        if b is not None:
            total += b.astype(np.float64).reshape(-1, *(1,) * geometry.rank)
        out[...] = total

    def _backward_data(self, dout: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
        """Each tap adds its products with dout to the cells that it read."""
        geometry = self.case.geometry
        gradient = _grouped(dout.astype(np.float64), 1, geometry.groups)
        weights = _grouped(w.astype(np.float64), 0, geometry.groups)
        padded = _grouped(np.zeros(geometry.padded.x_shape), 1, geometry.groups)
        for tap, slices in _taps(geometry):
            padded[slices] += np.einsum("ngf...,gfc->ngc...", gradient, weights[tap])
        inside: Any = (..., *(slice(a.lo, a.lo + a.size) for a in geometry.axes))
        dx[...] = padded.reshape(geometry.padded.x_shape)[inside]

    def _backward_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """The gradient of each tap sums the products of dout with the cells that the tap read."""
        geometry, padded = self.case.geometry, self._padded(x)
        gradient = _grouped(dout.astype(np.float64), 1, geometry.groups)
        total = _grouped(np.zeros(dw.shape), 0, geometry.groups)
        for tap, slices in _taps(geometry):
            cells = padded[slices]
            flat = (a.reshape(*a.shape[:3], -1) for a in (gradient, cells))
            total[tap] = np.einsum("ngfl,ngcl->gfc", *flat)
        dw[...] = total.reshape(dw.shape)
