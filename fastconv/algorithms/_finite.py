"""Transforms under 'auto': what overflows inside them is computed again, as sums of products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastconv.algorithms.base import Algorithm, Op
from fastconv.geometry import ConvGeometry

#: Which algorithm sums the products of a case.
Choose = Callable[[Op, ConvGeometry, np.dtype, int], Algorithm]


def _runs(counts: np.ndarray) -> Iterator[slice]:
    """Images with a count above 0, neighbours together."""
    images = np.flatnonzero(counts)
    for run in np.split(images, np.flatnonzero(np.diff(images) > 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


class Redone(Algorithm):
    """An algorithm by transforms, and a second one for the images whose results are not all finite.

    A transform adds numbers that the definition does not add, so it overflows where the sum of products is finite, and
    spreads an inf or NaN to outputs that do not see it. It never hides one: every output of a tile has a part in
    what overflowed. So a finite result needs no second look, and another is done again, image by image, by the
    cheapest algorithm that sums products; a gradient of the weights, which sums over images, as a whole.
    """

    sums_products = False

    def __init__(self, transform: Algorithm, exact: Choose) -> None:
        self.name, self.own_threads = transform.name, transform.own_threads
        self.transform, self.exact = transform, exact

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """What the transform cannot serve."""
        return self.transform.unsupported(op, geometry, dtype)

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """That of the transform: the second algorithm begins after it has ended."""
        return self.transform.workspace_bytes(op, geometry, dtype, threads)

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Where everything is finite."""
        return self.transform.work(op, geometry, dtype, threads)

    def _again(
        self, op: Op, counts: np.ndarray, geometry: ConvGeometry, dtype: np.dtype, threads: int
    ) -> Iterator[tuple[slice, ConvGeometry, Algorithm]]:
        """The images to do again, their geometry, and what by."""
        for images in _runs(counts):
            part = geometry.for_batch(images.stop - images.start)
            yield images, part, self.exact(op, part, dtype, threads)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Images again whose output has an inf or NaN."""
        counts = self.transform.forward(x, w, b, geometry, out, threads)
        if counts is not None:
            with _quiet():
                for images, part, by in self._again("forward", counts, geometry, out.dtype, threads):
                    by.forward(x[images], w, b, part, out[images], threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """Images again whose gradient has an inf or NaN."""
        counts = self.transform.backward_data(dout, w, geometry, dx, threads)
        if counts is not None:
            with _quiet():
                for images, part, by in self._again("backward_data", counts, geometry, dx.dtype, threads):
                    by.backward_data(dout[images], w, part, dx[images], threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """As `backward_data`."""
        counts = self.transform.transposed(x, w, b, geometry, out, threads)
        if counts is not None:
            with _quiet():
                for images, part, by in self._again("backward_data", counts, geometry, out.dtype, threads):
                    by.transposed(x[images], w, b, part, out[images], threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """All of it again where it has an inf or NaN."""
        if self.transform.backward_weights(x, dout, geometry, dw, threads) is not None:
            with _quiet():
                by = self.exact("backward_weights", geometry, dw.dtype, threads)
                by.backward_weights(x, dout, geometry, dw, threads)


def _quiet() -> Any:
    """No warnings of NumPy's: what the second algorithm leaves inf or NaN is so by definition."""
    return np.errstate(all="ignore")
