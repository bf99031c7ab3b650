"""Gradient boosting of small trees, which correct the estimates of the cost model.

A tree fits the errors that the trees before it have left. All nodes of a level share a feature and a threshold, so the
trees are small and fit noise less than others; see L. Prokhorenkova et al., "CatBoost: unbiased boosting with
categorical features", arXiv:1706.09516.
"""

from __future__ import annotations

import numpy as np

from fastconv.convolution.cost.correction import Trees

#: The number of trees of an algorithm, and the number of levels of a tree.
COUNT, DEPTH = 60, 3
#: The part of the errors that a tree removes.
RATE = 0.15
#: The weight of an error of 0 that is added to each leaf, so that leaves of few cases have small values.
PRIOR = 3.0
#: The largest number of thresholds that are tried for a feature.
THRESHOLDS = 31


class Boosting:
    """Trees for cases with some features: (cases, features)."""

    def __init__(self, features: np.ndarray) -> None:
        self.thresholds = [_thresholds(column) for column in features.T]
        #: The number of thresholds that each value exceeds: (cases, features).
        self.exceeded = np.stack([np.searchsorted(t, v) for t, v in zip(self.thresholds, features.T, strict=True)], 1)
        self.trees: list[tuple[list[int], list[float], list[float]]] = []

    def add(self, errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Add a tree that fits `errors` with some weights. Return its values, by which the errors become smaller."""
        sums = weights * errors
        leaf, features, at = np.zeros(len(errors), np.intp), list[int](), list[float]()
        for level in range(DEPTH):
            feature, index = self._best_split(leaf, 1 << level, sums, weights)
            features.append(feature)
            at.append(float(self.thresholds[feature][index]))
            leaf = 2 * leaf + (self.exceeded[:, feature] > index)
        total, count = (np.bincount(leaf, values, 1 << DEPTH) for values in (sums, weights))
        leaves = (RATE * total / (count + PRIOR)).round(3)
        self.trees.append((features, at, leaves.tolist()))
        found: np.ndarray = leaves[leaf]
        return found

    def result(self) -> Trees:
        """All trees that were added."""
        return Trees(*zip(*self.trees, strict=True))

    def _best_split(self, leaf: np.ndarray, leaves: int, sums: np.ndarray, weights: np.ndarray) -> tuple[int, int]:
        """The feature and the index of its threshold that reduce the squared errors most, if they split all leaves."""
        best, found = -1.0, (0, 0)
        for feature, thresholds in enumerate(self.thresholds):
            if not len(thresholds):
                continue
            width = len(thresholds) + 1
            cell = leaf * width + self.exceeded[:, feature]
            gain = np.zeros(len(thresholds))
            total, count = (
                np.bincount(cell, values, leaves * width).reshape(leaves, width).cumsum(axis=1)
                for values in (sums, weights)
            )
            for low, low_count in (
                (total[:, :-1], count[:, :-1]),
                (total[:, -1:] - total[:, :-1], count[:, -1:] - count[:, :-1]),
            ):
                gain += (low**2 / (low_count + PRIOR)).sum(axis=0)
            index = int(gain.argmax())
            if gain[index] > best:
                best, found = float(gain[index]), (feature, index)
        return found


def _thresholds(values: np.ndarray) -> np.ndarray:
    """At most `THRESHOLDS` thresholds, which divide the values of a feature into parts of about equal numbers."""
    found = np.unique(values)
    if len(found) > THRESHOLDS + 1:
        found = np.unique(np.quantile(values, np.linspace(0, 1, THRESHOLDS + 2)))
    return np.unique(((found[1:] + found[:-1]) / 2).round(2))
