"""Weights pruned at random or by structure, the contenders that compute with them, and crossover points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import fastconv
from fastconv.convolution.choose import REGISTRY, choose
from fastconv.convolution.plan import Case as PlanCase
from support import matrices
from support.harness import Contenders, Oracle, Timing
from support.layers import Layer
from support.peers import Call, ours, pytorch

#: Percentages of zeros among the weights.
RANDOM = (0, 30, 50, 65, 80, 90, 95, 99)
#: The contenders that compute with dense weights, and with pruned ones.
DENSE = ("auto", "implicit", "im2col", "PyTorch")
PRUNED = ("sparse", "auto, pruned", "toeplitz", "CSR by SciPy")
#: The contenders that use the Toeplitz matrix.
BY_MATRIX = PRUNED[2:]
WITHOUT_CHANNELS = "auto, channels cut out"
#: Larger matrices are left out.
MOST_BYTES = 128 << 20


@dataclass(frozen=True)
class Case:
    """A layer, a batch, and the way in which weights are pruned."""

    layer: Layer
    batch: int
    pattern: str  # 'random', 'taps' or 'channels'

    @property
    def name(self) -> str:
        """In words."""
        how = "" if self.pattern == "random" else f", whole {self.pattern}"
        return f"{self.layer.case}, batch {self.batch}{how}"

    def weights(self, w: np.ndarray) -> dict[float, np.ndarray]:
        """The weights for each fraction of zeros; a weight that is zero at one fraction is zero at all larger ones."""
        rng = np.random.default_rng(1)
        found = {}
        if self.pattern == "random":
            order = rng.permutation(w.size)
            for percent in RANDOM:
                pruned = w.copy()
                pruned.reshape(-1)[order[: w.size * percent // 100]] = 0
                found[percent / 100] = pruned
            return found
        flat = w.reshape(*w.shape[:2], -1)
        units = flat.shape[2 if self.pattern == "taps" else 1]
        counts = range(0, units, 2) if self.pattern == "taps" else [round(units * percent / 100) for percent in RANDOM]
        order = rng.permutation(units)
        for count in counts:
            pruned = flat.copy()
            if self.pattern == "taps":
                pruned[:, :, order[:count]] = 0
            else:
                pruned[:, order[:count]] = 0
            found[count / units] = pruned.reshape(w.shape)
        return found


def _without_channels(layer: Layer, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> Call:
    """A dense layer of the remaining channels: weights are sliced once, images in every call."""
    kept = np.flatnonzero(w.any(axis=(0, *range(2, w.ndim))))
    left = np.ascontiguousarray(w[:, kept])
    return lambda: fastconv.conv(x[:, kept], left, b, **layer.options)


def nnz(layer: Layer, w: np.ndarray) -> int:
    """The number of entries of the matrix of these weights."""
    per_tap = np.bincount(matrices.meetings(layer)[0], minlength=math.prod(w.shape[2:]))
    return int(np.count_nonzero(w.reshape(-1, len(per_tap)), axis=0) @ per_tap)


def key(name: str, zeros: float | None) -> str:
    """The key of a contender in a row of timings."""
    return name if zeros is None else f"{name} @ {zeros:.4f}"


def by_matrix(layer: Layer, w: np.ndarray, x: np.ndarray, out_shape: tuple[int, ...], threads: int) -> dict[str, Call]:
    """Products of images with a finished matrix by SciPy and by fastconv; images keep their memory layout."""
    matrix = matrices.ours(layer, w)
    return {
        "CSR by SciPy": partial(matrices.product_of_images, matrix, x, out_shape),
    }


def contenders(case: Case, threads: int) -> tuple[Contenders, dict[str, Oracle], dict[float, dict[str, Any]]]:
    """The contenders at all fractions of zeros, their expected results, and notes on each fraction."""
    layer, geometry = case.layer, case.layer.geometry(case.batch)
    x, w, b, dout = layer.arrays(case.batch)
    b = np.zeros_like(b)
    single = np.dtype(np.float32)
    calls: dict[str, Call | None] = {}
    oracles: dict[str, Oracle] = {}
    told: dict[float, dict[str, Any]] = {}
    for zeros, pruned in case.weights(w).items():
        doubles = (array.astype(np.float64) for array in (x, pruned))
        right = Oracle(fastconv.conv(*doubles, **layer.options, algorithm="im2col"), single)
        args = layer, "forward", x, pruned, b, dout
        here: dict[str, Call | None] = {"sparse": ours(*args, "sparse"), "auto, pruned": ours(*args)}
        entries = nnz(layer, pruned)
        size = matrices.csr_bytes(layer, entries)
        if case.pattern == "random":
            here |= dict.fromkeys(BY_MATRIX)
            if size <= MOST_BYTES:
                # The algorithm refuses by the size of the matrix of dense weights.
                if REGISTRY["toeplitz"].unsupported(PlanCase.of("forward", geometry, single, threads)) is None:
                    here["toeplitz"] = ours(*args, "toeplitz")
                here |= by_matrix(layer, pruned, x, geometry.out_shape, threads)
        elif case.pattern == "channels":
            here[WITHOUT_CHANNELS] = _without_channels(layer, x, pruned, b)
        if not zeros:
            dense = {name: ours(*args, name) for name in DENSE[:3]} | {"PyTorch": pytorch(*args)}
            calls |= dense
            oracles |= dict.fromkeys(dense, right)
        calls |= {key(name, zeros): call for name, call in here.items()}
        oracles |= {key(name, zeros): right for name in here}
        told[zeros] = {"nnz": entries, "matrix_bytes": size}
    return calls, oracles, told


def dense_choice(layer: Layer, batch: int, threads: int) -> str:
    """The algorithm that 'auto' takes for dense weights."""
    return choose(PlanCase.of("forward", layer.geometry(batch), np.dtype(np.float32), threads)).algorithm


class Curves:
    """The seconds of one case, by contender and fraction of zeros."""

    def __init__(self, timings: dict[str, Timing | None], zeros: Sequence[float]) -> None:
        self.timings, self.zeros = timings, tuple(zeros)

    def seconds(self, name: str, zeros: float) -> float | None:
        """The seconds of a contender; a dense contender has the same time at every fraction."""
        timing = self.timings.get(key(name, None)) or self.timings.get(key(name, zeros))
        return timing and timing.seconds

    def points(self, name: str) -> list[tuple[float, float]]:
        """The measured points (fraction of zeros, seconds) of a contender."""
        found = [(zeros, self.seconds(name, zeros)) for zeros in self.zeros]
        return [(zeros, seconds) for zeros, seconds in found if seconds is not None]

    def ratio(self, peer: str, own: str, zeros: float) -> float | None:
        """The seconds of the peer divided by those of `own`."""
        a, b = self.seconds(peer, zeros), self.seconds(own, zeros)
        return a / b if a and b else None

    def crossover(self, peer: str, own: str = "sparse") -> float | None:
        """The fraction of zeros from which `own` is faster; None if it is slower at the last one, too."""
        found = [(zeros, self.ratio(peer, own, zeros)) for zeros in self.zeros]
        return crossover([(zeros, ratio) for zeros, ratio in found if ratio is not None])


def crossover(ratios: Sequence[tuple[float, float]]) -> float | None:
    """The fraction of zeros at which a ratio passes 1 for good; the ratios are in rising order of zeros.

    The logarithm of the ratio is interpolated linearly in the logarithm of the
    fraction of weights left. The result is 0 if the ratio is above 1 everywhere,
    and None if the last one is below 1.
    """
    if not ratios or ratios[-1][1] < 1:
        return None
    for (t, above), (s, below) in itertools.pairwise(reversed(ratios)):
        if below < 1 <= above:
            part = -math.log(below) / math.log(above / below)
            return 1 - (1 - s) ** (1 - part) * (1 - t) ** part
    return ratios[0][0]
