"""Transforms under 'auto': images in which a transform overflows are computed again, as sums of products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastconv.algorithms.base import Algorithm, Op
from fastconv.geometry import ConvGeometry

#: A function that chooses the algorithm which computes images again.
Choose = Callable[[Op, ConvGeometry, np.dtype, int], Algorithm]


def _runs(counts: np.ndarray) -> Iterator[slice]:
    """Slices of the images whose count is above 0; neighbouring images are in one slice."""
    images = np.flatnonzero(counts)
    for run in np.split(images, np.flatnonzero(np.diff(images) > 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


class Redone(Algorithm):
    """An algorithm that uses transforms, and a second one for the images whose results are not all finite.

    A transform adds numbers that the definition does not add. So it may overflow where the sum of products is finite,
    and it spreads an inf or NaN to outputs that do not read it. But it never hides one, because each output of a tile
    depends on every number that overflowed. So a finite result is right as it is. An image with an inf or NaN is
    computed again by the cheapest algorithm that sums products. The gradient of the weights is computed again as a
    whole, because it sums over images.
    """

    sums_products = False

    def __init__(self, transform: Algorithm, exact: Choose) -> None:
        self.name, self.own_threads = transform.name, transform.own_threads
        self.transform, self.exact = transform, exact

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """As the transform; `exact` gives an algorithm that serves the same border."""
        return self.transform.reads_borders(op, geometry)

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """As the transform."""
        return self.transform.unsupported(op, geometry, dtype)

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """As the transform; the second algorithm starts after the transform has freed its workspace."""
        return self.transform.workspace_bytes(op, geometry, dtype, threads)

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """As the transform, which is right if everything is finite."""
        return self.transform.work(op, geometry, dtype, threads)

    def _again(
        self, op: Op, counts: np.ndarray, geometry: ConvGeometry, dtype: np.dtype, threads: int
    ) -> Iterator[tuple[slice, ConvGeometry, Algorithm]]:
        """The images to compute again, their geometry, and the algorithm for them."""
        for images in _runs(counts):
            part = geometry.for_batch(images.stop - images.start)
            yield images, part, self.exact(op, part, dtype, threads)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Compute images again whose output has an inf or NaN."""
        counts = self.transform.forward(x, w, b, geometry, out, threads)
        if counts is not None:
            with _quiet():
                for images, part, by in self._again("forward", counts, geometry, out.dtype, threads):
                    by.forward(x[images], w, b, part, out[images], threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """Compute images again whose gradient has an inf or NaN."""
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
        """Compute all of dw again if it has an inf or NaN."""
        if self.transform.backward_weights(x, dout, geometry, dw, threads) is not None:
            with _quiet():
                by = self.exact("backward_weights", geometry, dw.dtype, threads)
                by.backward_weights(x, dout, geometry, dw, threads)


def _quiet() -> Any:
    """Silence NumPy's warnings, because an inf or NaN of the second algorithm is the right result."""
    return np.errstate(all="ignore")
