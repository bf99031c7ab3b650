"""The legal values of `pad` and `pad_mode`, and the numbers of cells that they add before and after each axis."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from fastconv.checks.messages import border_hint, count, pad_hint, pair_hint, shown
from fastconv.checks.options import as_int, as_listed, for_one_axis, per_axis
from fastconv.geometry.axis import Axis, PerAxis

Pad: TypeAlias = PerAxis | Sequence[tuple[int, int]] | Literal["valid", "same", "same_lower", "full"]
PadMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
PAD_NAMES = ("valid", "same", "same_lower", "full")
PAD_MODES = ("zeros", "reflect", "replicate", "circular")


def same_pad(size: int, k: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the pads for which the output size is ``ceil(size / stride)``.

    If the total number of added cells is odd, the additional cell is at the end. For example, kernel 4 with stride 1
    has the pads (1, 2). `scipy.signal` adds this cell at the start: for the same result, use ``(hi, lo)`` or
    ``pad='same_lower'``.

    Parameters
    ----------
    size, k : int
        Input and kernel size along one axis, in cells.
    stride, dilation : int, default 1
        Stride and dilation of the window.

    Returns
    -------
    (lo, hi) : tuple of int
        The numbers of cells to add before and after; ``lo <= hi <= lo + 1``.

    Raises
    ------
    ValueError, TypeError
        If the size is negative, another argument is below 1, or one is not an int.

    Examples
    --------
    >>> from fastconv import same_pad
    >>> same_pad(32, 5)
    (2, 2)
    >>> same_pad(224, 7, stride=2)
    (2, 3)
    """
    size, k, stride, dilation = map(for_one_axis, (size, k, stride, dilation))
    size = as_int("size", size, 0)
    k, stride, dilation = as_int("k", k, 1), as_int("stride", stride, 1), as_int("dilation", dilation, 1)
    out = -(-size // stride)
    total = max((out - 1) * stride + dilation * (k - 1) + 1 - size, 0) if out else 0
    return total // 2, total - total // 2


def resolve_pad(
    pad: Any,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    names: tuple[str, ...],
) -> tuple[tuple[int, int], ...]:
    """Return the option `pad` as one pair ``(lo, hi)`` per axis. Only names such as 'same' need stride and dilation."""
    rank = len(sizes)
    if isinstance(pad, str):
        if pad not in names:
            raise ValueError(f"pad is {pad!r}; legal names are {', '.join(map(repr, names))}{pad_hint(pad, names)}")
        if pad == "valid":
            return ((0, 0),) * rank
        if pad == "full":
            return tuple((d * (k - 1),) * 2 for d, k in zip(dilation, kernel, strict=True))
        pairs = [same_pad(*axis) for axis in zip(sizes, kernel, stride, dilation, strict=True)]
        return tuple((hi, lo) if pad == "same_lower" else (lo, hi) for lo, hi in pairs)
    pad = as_listed(pad)
    if isinstance(pad, (list, tuple)) and any(isinstance(p, (list, tuple)) for p in pad):
        if len(pad) != rank or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pad):
            raise ValueError(
                f"pad is {pad!r}; legal are an int, one int per axis, one (lo, hi) pair per axis "
                f"(there are {rank}), or {', '.join(map(repr, names))}"
            )
        return tuple((as_int(f"pad[{i}][0]", lo, 0), as_int(f"pad[{i}][1]", hi, 0)) for i, (lo, hi) in enumerate(pad))
    if isinstance(pad, (list, tuple)) and len(pad) != rank:
        raise ValueError(
            f"pad has {count(len(pad), 'value')}, {pad!r}, for {count(rank, 'spatial axis', 'spatial axes')}; "
            f"give an int or {rank} of them{pair_hint(pad, rank)}"
        )
    return tuple((p, p) for p in per_axis("pad", pad, rank, 0))


def check_padded(sizes: tuple[int, ...], pads: tuple[tuple[int, int], ...], lead: tuple[int, ...]) -> None:
    """Raise an error if padded images have too many elements to be indexed. `lead` is ``(N, C)``."""
    padded = tuple(s + lo + hi for s, (lo, hi) in zip(sizes, pads, strict=True))
    if math.prod(padded) * max(math.prod(lead), 1) > sys.maxsize or any(p > sys.maxsize for p in padded):
        raise ValueError(
            f"pad {pads} makes the padded input {(*lead, *padded)}, which has more elements than can be addressed"
        )


def pad_mode_name(pad_mode: Any) -> str:
    if not isinstance(pad_mode, str) or pad_mode not in PAD_MODES:
        kind = ValueError if isinstance(pad_mode, str) else TypeError
        hint = border_hint(pad_mode, PAD_MODES)
        raise kind(f"pad_mode is {shown(pad_mode)}; legal are {', '.join(map(repr, PAD_MODES))}{hint}")
    return pad_mode


def pad_mode_fault(pad_mode: str, axes: tuple[Axis, ...]) -> str | None:
    """Return an error text if a pad is too large for `pad_mode`, and None otherwise."""
    if pad_mode == "zeros":
        return None
    for i, axis in enumerate(axes):
        most = {"reflect": axis.size - 1, "circular": axis.size, "replicate": sys.maxsize if axis.size else 0}[pad_mode]
        if max(axis.lo, axis.hi) > max(most, 0):
            return (
                f"spatial axis {i}: pad ({axis.lo}, {axis.hi}) is more than {pad_mode!r} padding can take from "
                f"{count(axis.size, 'cell')}; legal is at most {max(most, 0)} on each side"
            )
    return None


def check_pad_mode(pad_mode: str, axes: tuple[Axis, ...]) -> None:
    fault = pad_mode_fault(pad_mode, axes)
    if fault is not None:
        raise ValueError(fault)
