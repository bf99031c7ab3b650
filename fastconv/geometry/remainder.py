"""The error message for a stride that leaves a remainder, with ``strict=True``. It suggests legal strides and pads."""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np

#: The largest number that is tried as a divisor. If d divides n, then n / d is a divisor, too. So all divisors of
#: numbers up to 10**12 are found.
_SEARCH = 10**6


def explain_remainder(i: int, axis: Any) -> str:
    """Return the error message for a stride that leaves a remainder along spatial axis `i`. It suggests the nearest
    legal strides and pads.
    """
    span = axis.padded - axis.extent
    kernel = f"kernel {axis.k}" if axis.dilation == 1 else f"dilated kernel {axis.extent}"
    return (
        f"spatial axis {i}: stride {axis.stride} leaves a remainder of {span % axis.stride}: "
        f"input {axis.size} + pads {axis.lo} + {axis.hi} - {kernel} = {span} is not a multiple of {axis.stride}; "
        f"nearest legal strides: {', '.join(map(str, _legal_strides(span, axis.stride)))}; "
        f"nearest legal pads at stride {axis.stride}: {', '.join(map(str, _legal_pads(span, axis)))}"
    )


def _legal_strides(span: int, stride: int) -> list[int]:
    """Return the next smaller and the next larger stride that leave no remainder. They are divisors of `span`, the
    distance between the first window and the last possible window.
    """
    small = np.arange(1, min(math.isqrt(span), _SEARCH) + 1)
    small = small[span % small == 0]
    divisors = sorted({*small.tolist(), *(span // small).tolist()})
    at = bisect.bisect(divisors, stride)
    return divisors[max(at - 1, 0) : at + 1]


def _legal_pads(span: int, axis: Any) -> list[int | tuple[int, int]]:
    """Return the nearest smaller and larger pads for which the stride leaves no remainder.

    An int stands for equal pads at both ends. A pair ``(lo, hi)`` keeps the `lo` of the axis if possible.
    """
    remainder = span % axis.stride
    found: list[int | tuple[int, int]] = []
    for change in (-remainder, axis.stride - remainder):
        total = axis.lo + axis.hi + change
        if total < 0:
            continue
        if axis.lo == axis.hi and total % 2 == 0:
            found.append(total // 2)
        hi = axis.hi + change
        found.append((axis.lo, hi) if hi >= 0 else (total, 0))
    return found
