"""The algorithms, the choice among them, and the functions that run the chosen one."""

from __future__ import annotations

from fastconv.algorithms.base import OPS, Algorithm, Op
from fastconv.algorithms.choose import DEFAULT_ALGORITHM, REGISTRY, check_name, choose, passed_over, ranked_cost
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


def algorithms(op: str = "forward") -> tuple[str, ...]:
    """Names of the algorithms that serve an op.

    Parameters
    ----------
    op : {'forward', 'backward_data', 'backward_weights'}

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        For an unknown op.

    Notes
    -----
    All run in the threads of the call. The product of 'im2col' is NumPy's BLAS's,
    in threads of its own, where that is known to use no more of them than the
    call may, and else fastconv's; 'auto' takes 'im2col' in the first case only.

    Examples
    --------
    >>> from fastconv import algorithms
    >>> algorithms()
    ('reference', 'im2col', 'implicit', 'winograd', 'depthwise', 'fft', 'separable', 'sparse', 'toeplitz')
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}; legal are {', '.join(map(repr, OPS))}")
    return tuple(REGISTRY)
