"""Checks and helper functions that several course modules use."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.runtime import memory as _memory


def images(name: str, x: Any, layout: str = "(N, C, H, W)", channels: int = 1) -> np.ndarray:
    """Return `x` as an array. Raise an error if it does not have the axes of `layout`, or has no channels.

    `channels` is the index of the channel axis.
    """
    x = _arrays.as_array(name, x)
    if x.ndim != layout.count(",") + 1:
        raise ValueError(f"{name} must be {layout}, got shape {x.shape}")
    if x.shape[channels] < 1:
        raise ValueError(f"{name} must be {layout} with at least one channel, got shape {x.shape}")
    return x


def common(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all arrays, converted to their common dtype, float32 or float64."""
    dtype = _arrays.result_dtype(*arrays)
    return tuple(_arrays.prepare(array, dtype) for array in arrays)


def zero_padded(x: np.ndarray, pads: tuple[int, ...], lead: int, dtype: np.dtype) -> np.ndarray:
    """Return a copy of `x` with ``pads[i]`` zeros at both ends of axis ``lead + i``."""
    after = x.ndim - lead - len(pads)
    every = (0,) * lead + pads + (0,) * after
    shape = tuple(size + 2 * pad for size, pad in zip(x.shape, every, strict=True))
    _memory.check_bytes("the padded input", shape, dtype)
    out = np.zeros(shape, dtype)
    cropped(out, pads, lead)[...] = x
    return out


def cropped(x: np.ndarray, pads: tuple[int, ...], lead: int) -> np.ndarray:
    """Return a view of `x` without ``pads[i]`` cells at both ends of axis ``lead + i``."""
    inner = tuple(slice(pad, size - pad) for pad, size in zip(pads, x.shape[lead:], strict=False))
    return x[(slice(None),) * lead + inner]


def ran_forward(layer: object, kept: Any) -> Any:
    """Return `kept`, the value that `forward` stored for `backward`. Raise an error if it is None."""
    if kept is None:
        raise ValueError(f"{type(layer).__name__}.backward() was called before forward(); call forward() first")
    return kept
