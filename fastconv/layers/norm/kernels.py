"""The plans of normalisations. They call compiled kernels, and do not check the arguments again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastconv._ext.norm import lrn as _lrn, norm as _ext
from fastconv.checks import arrays as _arrays
from fastconv.layers.calls import Call, Calls
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

_Plan = TypeVar("_Plan", bound="NormPlan")
_FLOAT64 = np.dtype(np.float64)

#: A normalisation takes about this many times as long as a copy of x.
_SLOWNESS = 1
#: Local response normalisation takes about this many times as long as a copy of x. Powers take most of the time.
_LRN_SLOWNESS = 4
#: The approximate workspace of a thread in local response normalisation, in bytes. It fits into the L2 cache.
_SPACE_BYTES = 1 << 18
#: The largest and the smallest number of positions of an image that local response normalisation processes at a time.
#: An image with fewer positions is processed as a whole.
_WIDEST, _NARROWEST = 1024, 64


class NormSizes(NamedTuple):
    """The sizes of x: N images, C channels, S positions (the product of the spatial axes), and G groups of channels."""

    N: int
    C: int
    S: int
    G: int = 1

    @classmethod
    def of(cls, shape: tuple[int, ...], groups: int = 1) -> NormSizes:
        """Return the sizes of an x with the given shape (N, C, *spatial)."""
        return cls(shape[0], shape[1], math.prod(shape[2:]), groups)


def has_negative(moments: np.ndarray) -> bool:
    """Return whether a contiguous float64 array has a number below 0."""
    return _ext.has_negative(moments)


@dataclass(frozen=True)
class NormPlan(ABC):
    """A plan of a normalisation or its gradient, for one shape, dtype, number of threads and instruction set.

    All arrays are C-contiguous and not empty. Their dtype is `dtype`, unless a method says that it is float64.
    """

    sizes: NormSizes
    dtype: np.dtype
    threads: int
    isa: int
    passes = _SLOWNESS

    @cached_property
    def dtype_index(self) -> int:
        """The index of the dtype for the kernels: 0 for float32, 1 for float64."""
        return _arrays.DTYPES[self.dtype]

    @cached_property
    def x_bytes(self) -> int:
        """The number of bytes of x."""
        return math.prod(self.sizes[:3]) * self.dtype.itemsize

    @property
    @abstractmethod
    def items(self) -> int:
        """The number of work items, which are distributed over the threads."""

    @cached_property
    def sharing(self) -> dict[str, int]:
        """The keyword arguments of `_threads.share`. `work` is the estimated time, expressed as the number of
        bytes that a copy would move in that time.
        """
        return {"items": self.items, "work": self.passes * self.x_bytes, "threads": self.threads}


class BatchNormPlan(NormPlan):
    """The base class of the plans of batch normalisation."""

    def __str__(self) -> str:
        return "columns" if self.sizes.S == 1 else "channels"

    @cached_property
    def items(self) -> int:
        """The number of work items. A work item is a channel, or a block of channels if there are no spatial axes."""
        return -(-self.sizes.C // _ext.COLUMNS) if self.sizes.S == 1 else self.sizes.C


class BatchNormForward(BatchNormPlan):
    """The plan of the forward pass of batch normalisation."""

    def run(
        self,
        x: np.ndarray,
        y: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        moments: np.ndarray,
        eps: float,
        train: bool,
    ) -> None:
        """Write the normalised x to `y`.

        `moments` (3, C) has the mean, the variance and 1 / sqrt(variance + eps) of each channel. If `train` is true,
        all three are computed from x. Otherwise the mean and the variance are read, and only 1 / sqrt(variance + eps)
        is computed. `moments`, `gamma` and `beta` are float64.
        """
        mean, variance, scale = moments
        given = self.dtype_index, x, y, gamma, beta, mean, variance, scale, self.sizes, eps, train, self.isa
        _threads.share(_ext.batch_forward, given, **self.sharing)


class BatchNormBackward(BatchNormPlan):
    """The plan of the backward pass of batch normalisation."""

    passes = 2 * _SLOWNESS

    def run(
        self,
        dout: np.ndarray,
        x: np.ndarray,
        dx: np.ndarray,
        gamma: np.ndarray,
        mean: np.ndarray,
        scale: np.ndarray,
        train: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write dx, and return (dgamma, dbeta) in float64. `gamma`, `mean` and `scale` are float64, too."""
        sums = np.empty((self.sizes.C, 2))
        given = self.dtype_index, dout, x, dx, gamma, mean, scale, sums, self.sizes, train, self.isa
        _threads.share(_ext.batch_backward, given, **self.sharing)
        return sums[:, 1], sums[:, 0]


class GroupNormPlan(NormPlan):
    """The base class of the plans of layer and group normalisation."""

    def __str__(self) -> str:
        return "rows" if self.sizes.S == 1 else "groups"

    @cached_property
    def items(self) -> int:
        """The number of work items. A work item is one group of channels of one image."""
        return self.sizes.N * self.sizes.G

    def of_channels(self, array: np.ndarray) -> np.ndarray:
        """Return gamma or beta in the dtype that kernels read: that of x if S is 1, and float64 otherwise."""
        return _arrays.prepare(array, self.dtype if self.sizes.S == 1 else _FLOAT64)


class GroupNormForward(GroupNormPlan):
    """The plan of the forward pass of layer or group normalisation."""

    def run(
        self, x: np.ndarray, y: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write y, and return the mean and 1 / sqrt(variance + eps) as float64 arrays (N, G)."""
        shape = self.sizes.N, self.sizes.G
        mean, scale = np.empty(shape), np.empty(shape)
        gamma, beta = self.of_channels(gamma), self.of_channels(beta)
        given = self.dtype_index, x, y, gamma, beta, mean, scale, self.sizes, eps, self.isa
        _threads.share(_ext.group_forward, given, **self.sharing)
        return mean, scale


class GroupNormBackward(GroupNormPlan):
    """The plan of the backward pass of layer or group normalisation."""

    passes = 2 * _SLOWNESS

    def run(
        self, dout: np.ndarray, x: np.ndarray, dx: np.ndarray, gamma: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write dx, and return (dgamma, dbeta) in float64."""
        N, C, S, G = sizes = self.sizes
        rows = S == 1
        sums = np.empty((C, 2) if rows else (N, C, 2))
        given = self.dtype_index, dout, x, dx, self.of_channels(gamma), mean, scale, sums, sizes, self.isa
        _threads.share(_ext.group_backward, given, **self.sharing)
        if rows:
            _threads.share(
                _ext.group_sums,
                (self.dtype_index, dout, x, mean, scale, sums, sizes, self.isa),
                items=G * -(-(C // G) // _ext.COLUMNS),
                work=_SLOWNESS * self.x_bytes,
                threads=self.threads,
            )
        else:
            sums = sums.sum(axis=0)
        return sums[:, 1], sums[:, 0]


@dataclass(frozen=True)
class LrnPlan:
    """A plan of local response normalisation or its gradient, for one shape, window size and dtype."""

    sizes: NormSizes
    dtype: np.dtype
    threads: int
    #: The number of positions of an image that the kernel processes at a time.
    width: int
    kernel: _lrn.LrnKernel

    def __str__(self) -> str:
        return "neighbouring channels"

    def run(
        self, x: np.ndarray, dout: np.ndarray | None, to: np.ndarray, constants: tuple[float, float, float]
    ) -> None:
        """Write the output to `to`. If `dout` is given, write dx instead. `constants` is (alpha / size, beta, k)."""
        items = self.sizes.N * -(-self.sizes.S // self.width)
        shape = (_threads.most(self.threads, items), self.kernel.workspace)
        with _workspace.workspace("rows of channels", shape, self.dtype) as space:
            _threads.share(
                self.kernel.run,
                (x, dout, to, *constants, space),
                items=items,
                work=_LRN_SLOWNESS * (x.nbytes if dout is None else 2 * x.nbytes),
                threads=self.threads,
            )


def plan_norm(kind: type[_Plan], sizes: NormSizes, dtype: np.dtype) -> _Plan:
    """Return a plan of the class `kind`, for the default number of threads."""
    return plans.find(kind, sizes, dtype, _threads.get_threads(), _isa.current)


def norm_call(kind: type[NormPlan], sizes: NormSizes, dtype: np.dtype) -> Call[NormSizes]:
    """Return a `Call` with a plan of the class `kind`."""

    def make_plan(sizes: NormSizes, dtype: np.dtype, option: None, threads: int) -> Any:
        return plan_norm(kind, sizes, dtype)

    return Call(sizes, None, None, make_plan, dtype)


def gradient_calls(kind: type[NormPlan]) -> Calls[Call[NormSizes]]:
    """Return a store for the calls of a gradient. The only array of such a call is x, from the cache."""

    def resolve(dtype: np.dtype, x: np.ndarray, groups: int) -> Call[NormSizes]:
        return norm_call(kind, NormSizes.of(x.shape, groups), dtype)

    return Calls(("x",), resolve)


def plan_lrn(sizes: NormSizes, size: int, dtype: np.dtype, is_gradient: bool) -> LrnPlan:
    """Return the plan of local response normalisation over `size` channels, for the default number of threads."""
    return plans.find(_make_lrn, sizes, size, dtype, _threads.get_threads(), _isa.current, is_gradient)


def _make_lrn(sizes: NormSizes, size: int, dtype: np.dtype, threads: int, isa: int, is_gradient: bool) -> LrnPlan:
    # If the size is even, the window has one more channel after the normalised channel than before the channel.
    lo, hi = min((size - 1) // 2, sizes.C - 1), min(size // 2, sizes.C - 1)
    rows = _lrn.workspace_rows(lo, hi, sizes.C, is_gradient)
    most = _SPACE_BYTES // (rows * dtype.itemsize) // _NARROWEST * _NARROWEST
    width = min(sizes.S, max(_NARROWEST, min(_WIDEST, most)))
    kernel = _lrn.LrnKernel(
        dtype=_arrays.DTYPES[dtype],
        isa=isa,
        N=sizes.N,
        C=sizes.C,
        S=sizes.S,
        lo=lo,
        hi=hi,
        width=width,
        is_gradient=is_gradient,
    )
    return LrnPlan(sizes, dtype, threads, width, kernel)
