"""Checks and small steps that the packs of several courses use."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.runtime import memory as _memory


def images(name: str, x: Any, layout: str = "(N, C, H, W)", channels: int = 1) -> np.ndarray:
    """`x` as an array with the axes of `layout`; the axis `channels` must not be empty."""
    x = _arrays.as_array(name, x)
    if x.ndim != layout.count(",") + 1:
        raise ValueError(f"{name} must be {layout}, got shape {x.shape}")
    if x.shape[channels] < 1:
        raise ValueError(f"{name} {x.shape} has no channels")
    return x


def common(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """All arrays, converted to the dtype of the result."""
    dtype = _arrays.result_dtype(*arrays)
    return tuple(_arrays.prepare(array, dtype) for array in arrays)


def zero_padded(x: np.ndarray, pads: tuple[int, ...], lead: int, dtype: np.dtype) -> np.ndarray:
    """A copy of `x` with `pads` zeros on both sides of the axes that follow the first `lead` axes."""
    after = x.ndim - lead - len(pads)
    every = (0,) * lead + pads + (0,) * after
    shape = tuple(size + 2 * pad for size, pad in zip(x.shape, every, strict=True))
    _memory.check_bytes("the padded input", shape, dtype)
    out = np.zeros(shape, dtype)
    cropped(out, pads, lead)[...] = x
    return out


def cropped(x: np.ndarray, pads: tuple[int, ...], lead: int) -> np.ndarray:
    """A view of `x` without `pads` cells at both ends of the axes that follow the first `lead` axes."""
    inner = tuple(slice(pad, size - pad) for pad, size in zip(pads, x.shape[lead:], strict=False))
    return x[(slice(None),) * lead + inner]


def ran_forward(layer: object, kept: Any) -> Any:
    """The value that `forward` stored for `backward`; raises an error if there is none."""
    if kept is None:
        raise ValueError(f"{type(layer).__name__}.backward() has nothing to go back through: call forward() first")
    return kept
