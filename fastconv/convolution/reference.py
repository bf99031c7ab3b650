"""The slow reference implementation that tests compare with. For each tap, it multiplies the weights of the tap by a
slice of the padded image. It adds up the products in float64.
"""

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

#: The workspace may take `_MOST_BYTES` bytes or, if this is more, `_MOST_TIMES` times the bytes of the arguments and
#: the result in float64.
_MOST_BYTES, _MOST_TIMES = 1 << 28, 16


def _taps(geometry: ConvGeometry) -> Iterator[tuple[Any, Any]]:
    """Yield, for each tap, the index of its weights and the index of the elements that it reads in the padded image."""
    for tap in itertools.product(*(range(k) for k in geometry.kernel)):
        slices = (
            slice(t * a.dilation, t * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
            for t, a in zip(tap, geometry.axes, strict=True)
        )
        yield (..., *tap), (..., *slices)


def _grouped(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Return `array` with the channel axis split into (groups, channels of a group)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


class Reference(Algorithm):
    """A loop over taps: out[n, f] += w[f, c, tap] * x[n, c, elements that the tap reads]. Gradients are loops over
    taps, too.
    """

    name = "reference"

    def unsupported(self, case: Case) -> str | None:
        """Refuse cases that need too much memory, for example because of large padding."""
        nbytes = ReferencePlan(case).workspace_bytes
        if nbytes > max(_MOST_BYTES, _MOST_TIMES * total_bytes(case.geometry, np.dtype(np.float64))):
            return (
                f"copies of the padded image, the output and the weights would take {nbytes} bytes in float64; "
                f"use 'im2col' or 'auto'"
            )
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan of the loop over taps."""
        return ReferencePlan(case)


class ReferencePlan(Plan):
    """The loop over taps. It sums in float64, and rounds each result once."""

    algorithm = Reference.name

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of two float64 copies of the padded image, two of the output, and two of the weights."""
        geometry = self.case.geometry
        padded = math.prod(geometry.padded.x_shape)
        return 8 * (2 * padded + 2 * math.prod(geometry.out_shape) + 2 * math.prod(geometry.w_shape))

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of a run: multiply-adds, and one call."""
        return {"product": multiply_adds(self.case.geometry), "call": 1}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the op by a loop over taps."""
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
        """Sum over the taps, add the bias, and round once to the dtype of the result."""
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
        """Multiply dout by the weights of each tap, and add the products to the elements of dx that the tap reads."""
        geometry = self.case.geometry
        gradient = _grouped(dout.astype(np.float64), 1, geometry.groups)
        weights = _grouped(w.astype(np.float64), 0, geometry.groups)
        padded = _grouped(np.zeros(geometry.padded.x_shape), 1, geometry.groups)
        for tap, slices in _taps(geometry):
            padded[slices] += np.einsum("ngf...,gfc->ngc...", gradient, weights[tap])
        inside: Any = (..., *(slice(a.lo, a.lo + a.size) for a in geometry.axes))
        dx[...] = padded.reshape(geometry.padded.x_shape)[inside]

    def _backward_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """Compute dw at each tap: the sum of the products of dout with the image elements that the tap reads."""
        geometry, padded = self.case.geometry, self._padded(x)
        gradient = _grouped(dout.astype(np.float64), 1, geometry.groups)
        total = _grouped(np.zeros(dw.shape), 0, geometry.groups)
        for tap, slices in _taps(geometry):
            cells = padded[slices]
            flat = (a.reshape(*a.shape[:3], -1) for a in (gradient, cells))
            total[tap] = np.einsum("ngfl,ngcl->gfc", *flat)
        dw[...] = total.reshape(dw.shape)
