"""The three ops of a convolution."""

from __future__ import annotations

from typing import Literal, TypeAlias

Op: TypeAlias = Literal["forward", "backward_data", "backward_weights"]
OPS: tuple[Op, ...] = ("forward", "backward_data", "backward_weights")
