"""The interface of algorithms, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads


class Algorithm(ABC):
    """One way to compute the three ops of a convolution.

    Arguments are checked before: arrays are C-contiguous, native, of one float
    dtype and not empty; padding is with zeros unless the algorithm
    `reads_borders`; and there is no flip. Results are written to `out`, `dx`
    or `dw`, whatever these hold.

    What each has to define is its name, `plan`, and `unsupported` if there are
    cases that it cannot serve.
    """

    name: str
    #: Whether results are sums of products, and not of transforms, whose rounding errors are larger.
    sums_products = True
    #: Whether it runs in fastconv's threads. Threads of BLAS spin for a while after a call, on CPUs that the next call
    #: needs.
    own_threads = True
    #: Whether it is fast only if BLAS multiplies. 'auto' takes it only if BLAS is known to use no more threads than the
    #: call may.
    needs_blas = False
    #: Whether it skips zero weights. 'auto' takes it only if many weights are zero.
    skips_zeros = False
    #: Whether it serves only kernels that are outer products. 'auto' takes it only for such kernels.
    needs_rank_one = False

    @abstractmethod
    def plan(self, case: Case) -> Plan:
        """What computes a case that is supported."""

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Why this algorithm cannot serve the case, or None where it can."""
        return None

    def leaves(self, op: Op, masked: bool) -> bool:
        """Whether the dispatcher gives the op to the cheapest algorithm that sums products.

        With `masked`, the op is a gradient of only those weights that are not zero.
        """
        return False

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """Whether it supports the `pad_mode` of the geometry itself.

        Otherwise images are padded first, and gradients folded back.
        """
        return False

    def ways(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, Algorithm]:
        """The names of its variants, among which it chooses by the same rates: see `way`."""
        return {"": self}

    def way(self, name: str) -> Algorithm:
        """The variant of that name."""
        if name:
            raise ValueError(f"{self.name} has no form {name!r}")
        return self

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Memory that its plan takes beside the arguments."""
        return self.plan(Case.of(op, geometry, dtype, threads)).workspace_bytes

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Mapping[str, float]:
        """The amount of each kind of work that has a rate, for the thread with most work."""
        return self.plan(Case.of(op, geometry, dtype, threads)).work

    def pruned_work(
        self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
    ) -> Mapping[str, float]:
        """The same if only a share `density` of the weights is nonzero."""
        return self.plan(Case.of(op, geometry, dtype, threads, density)).work

    def whole_work(
        self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float = 1.0
    ) -> Mapping[str, float]:
        """The same, including the padding of an image before, or the folding of a gradient after."""
        if geometry.pad_mode == "zeros" or self.reads_borders(op, geometry):
            return self.pruned_work(op, geometry, dtype, threads, density)
        padded = geometry.padded
        border = math.prod(padded.x_shape) * dtype.itemsize / threads
        return {**self.pruned_work(op, padded, dtype, threads, density), "border": border, "borders": 1.0}

    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float = 1.0) -> float:
        """Estimated seconds, corrected by the sizes of the case, times the handicap, for ranking. A share `density` of
        the weights is nonzero.
        """
        work = self.whole_work(op, geometry, dtype, threads, density)
        factor = _rates.measured().correction.factor(self.name, op, geometry, dtype, threads)
        return self.handicap(threads) * factor * seconds(self.name, op, work)

    def handicap(self, threads: int) -> float:
        """The factor by which an algorithm has to be faster to be taken, because it may slow down later calls."""
        return 1.0 if self.own_threads or threads == 1 else _rates.blas_penalty()


class MethodAlgorithm(Algorithm):
    """An algorithm that has a method for each op.

    If `sums_products` is false, the methods return None for a result that is all
    finite. Otherwise they return how often an inf or NaN was found in each image;
    the gradient of the weights has one count, because it sums over images.
    """

    def plan(self, case: Case) -> Plan:
        """The method of the op."""
        return ByMethods(case, self)

    @abstractmethod
    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Bytes of workspace beside its arguments."""

    @abstractmethod
    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """The amount of each kind of work that has a rate, for the thread with most work."""

    def pruned_work(
        self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
    ) -> dict[str, float]:
        """The same if only a share `density` of the weights is nonzero."""
        return self.work(op, geometry, dtype, threads)

    @abstractmethod
    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """out (N, F, *out_spatial) from x (N, C, *spatial), w (F, C // groups, *kernel), b (F,)."""

    @abstractmethod
    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """dx (N, C, *spatial) from dout (N, F, *out_spatial)."""

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """out (N, C, *spatial) from x (N, F, *out_spatial): as `backward_data`, with bias b (C,)."""
        counts = self.backward_data(x, w, geometry, out, threads)
        if b is not None:
            out += per_channel(b, geometry)
        return counts

    @abstractmethod
    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """dw (F, C // groups, *kernel) from x and dout."""

    def backward_kept_weights(
        self, x: np.ndarray, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """The same, but zero where `w` is zero."""
        self.backward_weights(x, dout, geometry, dw, threads)
        clear_where_zero(w, dw, threads)

    def bind(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Callable[..., None]:
        """The method `op`, bound to a geometry and threads, so that the plan is looked up once for many calls."""
        method = getattr(self, op)
        if op == "forward":
            return lambda x, w, b, out: method(x, w, b, geometry, out, threads)
        return lambda first, second, result: method(first, second, geometry, result, threads)


class ByMethods(Plan):
    """The plan of an algorithm that has a method for each op."""

    def __init__(self, case: Case, algorithm: MethodAlgorithm) -> None:
        super().__init__(case)
        self.algorithm = algorithm
        self.sums_products, self.masks = algorithm.sums_products, True

    def __str__(self) -> str:
        return self.algorithm.name

    @cached_property
    def workspace_bytes(self) -> int:
        """As the algorithm says."""
        case = self.case
        return self.algorithm.workspace_bytes(case.op, case.geometry, case.dtype, case.threads)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """As the algorithm says."""
        case = self.case
        return self.algorithm.pruned_work(case.op, case.geometry, case.dtype, case.threads, case.density)

    @cached_property
    def run(self) -> Callable[..., Any]:
        """The method of the op."""
        case, algorithm = self.case, self.algorithm
        op, geometry, threads = case.op, case.geometry, case.threads
        bound = algorithm.bind(op, geometry, case.dtype, threads)
        if op == "forward":
            return bound

        def data(dout: np.ndarray, w: np.ndarray, b: np.ndarray | None, dx: np.ndarray) -> Any:
            if b is None:
                return bound(dout, w, dx)
            return algorithm.transposed(dout, w, b, geometry, dx, threads)

        def weights(x: np.ndarray, dout: np.ndarray, kept: np.ndarray | None, dw: np.ndarray) -> Any:
            if kept is None:
                return bound(x, dout, dw)
            return algorithm.backward_kept_weights(x, dout, kept, geometry, dw, threads)

        return data if op == "backward_data" else weights


def clear_where_zero(w: np.ndarray, dw: np.ndarray, threads: int) -> None:
    """Set dw to 0 where `w` is 0, at the speed of memory; NumPy's masks are much slower."""
    pieces = max(1, dw.nbytes >> 14)
    arguments = (_arrays.DTYPES[dw.dtype], w, dw, pieces, _isa.current)
    _threads.share(_ext.clear, arguments, items=pieces, work=2 * dw.nbytes, threads=threads)


def add_bias(b: np.ndarray | None, result: np.ndarray) -> None:
    """Add a bias, if any, to each channel of (N, C, *spatial)."""
    if b is not None:
        result += b.reshape(-1, *(1,) * (result.ndim - 2))


def per_channel(b: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """A view of b that broadcasts along the channels of an image."""
    return b.reshape(-1, *(1,) * geometry.rank)
