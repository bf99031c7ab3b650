"""The contract between the layers and whatever computes a convolution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import numpy as np

from fastconv.geometry import ConvGeometry

Op: TypeAlias = Literal["forward", "backward_data", "backward_weights"]

OPS: tuple[Op, ...] = ("forward", "backward_data", "backward_weights")

#: A nominal core, for costs that only have to rank: multiply-adds and bytes per second.
MULTIPLY_ADDS = 4e10
BYTES = 1e10


class Algorithm(ABC):
    """One way to compute the three ops of a convolution.

    What reaches an algorithm is checked and simple: C-contiguous native arrays
    of one float dtype, none of them empty, padding with zeros, no flip. Results
    are written to `out`, `dx` or `dw`, which hold nothing before.
    """

    name: str

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Why this algorithm cannot serve the case, or None where it can."""
        return None

    @abstractmethod
    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Memory it takes beside its arguments."""

    @abstractmethod
    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """Estimated seconds on a nominal core."""

    @abstractmethod
    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """out (N, F, *out_spatial) from x (N, C, *spatial), w (F, C // groups, *kernel), b (F,)."""

    @abstractmethod
    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """dx (N, C, *spatial) from dout (N, F, *out_spatial)."""

    @abstractmethod
    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """dw (F, C // groups, *kernel) from x and dout."""


def multiply_adds(geometry: ConvGeometry) -> int:
    """Of each of the three ops alike."""
    return geometry.flops // 2
