"""The algorithms, the choice among them, and the functions that run the chosen one."""

from __future__ import annotations

from fastconv.algorithms.base import OPS, Algorithm, Op
from fastconv.algorithms.choose import (
    DEFAULT_ALGORITHM,
    REGISTRY,
    algorithms,
    check_name,
    choose,
    passed_over,
    ranked_cost,
)
from fastconv.algorithms.dispatch import backward_data, backward_weights, forward, plan_for, transposed

__all__ = [
    "DEFAULT_ALGORITHM",
    "OPS",
    "REGISTRY",
    "Algorithm",
    "Op",
    "algorithms",
    "backward_data",
    "backward_weights",
    "check_name",
    "choose",
    "forward",
    "passed_over",
    "plan_for",
    "ranked_cost",
    "transposed",
]
