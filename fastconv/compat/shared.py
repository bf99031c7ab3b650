"""Checks and helper functions that several course modules use."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.runtime import memory as _memory


def images(name: str, x: Any, layout: str = "(N, C, H, W)", channels: int = 1) -> np.ndarray:
    """Return `x` as an array, after a check that it has the axes of `layout` and at least one channel.

    `channels` is the index of the axis of the channels.
    """
    x = _arrays.as_array(name, x)
    if x.ndim != layout.count(",") + 1:
        raise ValueError(f"{name} must be {layout}, got shape {x.shape}")
    if x.shape[channels] < 1:
        raise ValueError(f"{name} {x.shape} has no channels")
    return x


def common(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all arrays, converted to the dtype of the result."""
    dtype = _arrays.result_dtype(*arrays)
    return tuple(_arrays.prepare(array, dtype) for array in arrays)


def zero_padded(x: np.ndarray, pads: tuple[int, ...], lead: int, dtype: np.dtype) -> np.ndarray:
    """Return a copy of `x` with `pads` zeros on both sides of the axes that follow the first `lead` axes."""
    after = x.ndim - lead - len(pads)
    every = (0,) * lead + pads + (0,) * after
    shape = tuple(size + 2 * pad for size, pad in zip(x.shape, every, strict=True))
    _memory.check_bytes("the padded input", shape, dtype)
    out = np.zeros(shape, dtype)
    cropped(out, pads, lead)[...] = x
    return out


def cropped(x: np.ndarray, pads: tuple[int, ...], lead: int) -> np.ndarray:
    """Return a view of `x` without `pads` cells at both ends of the axes that follow the first `lead` axes."""
    inner = tuple(slice(pad, size - pad) for pad, size in zip(pads, x.shape[lead:], strict=False))
    return x[(slice(None),) * lead + inner]


def ran_forward(layer: object, kept: Any) -> Any:
    """Return `kept`, the value that `forward` stored for `backward`. If it is None, a ValueError is raised."""
    if kept is None:
        raise ValueError(f"{type(layer).__name__}.backward() has nothing to go back through: call forward() first")
    return kept
