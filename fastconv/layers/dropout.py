"""Dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import TupleCache, kind_of
from fastconv.checks.options import as_cache, as_int, as_number, is_training, merge_options, refuse_keywords

_DEFAULTS = dict.fromkeys(("p", "mode", "seed"))
_LEGAL_P = "p is the probability of keeping a value and must be above 0 and at most 1"


def _settings(dropout_param: Any) -> tuple[float, bool, int | None]:
    """Check the parameters. Return `p`, whether the mode is 'train', and the seed."""
    legal = "a dict with 'p' and 'mode'"
    settings = merge_options("dropout_forward", _DEFAULTS, {}, dropout_param, "dropout_param", legal=legal)
    p, mode, seed = settings["p"], settings["mode"], settings["seed"]
    if p is None:
        raise ValueError(f"dropout_param has no 'p'; {_LEGAL_P}")
    p = as_number("p", p)
    if not 0 < p <= 1:
        raise ValueError(f"{_LEGAL_P}, got {p:g}")
    train = is_training(mode, "dropout_param")
    return p, train, None if seed is None else as_int("seed", seed, 0, 2**32 - 1)


def dropout_forward(x: Any, dropout_param: Mapping[str, Any] | None = None, **unknown: Any) -> tuple[np.ndarray, tuple]:
    """Inverted dropout: with probability `p` a value is kept and divided by `p`, and otherwise it is set to zero.

    Parameters
    ----------
    x : array_like, of any shape
    dropout_param : dict
        ``'p'``: the probability of keeping a value, above 0 and up to 1. ``'mode'``: ``'train'``,
        or ``'test'``, which keeps all values. ``'seed'``: an int below 2**32, which makes the call
        repeatable.

    Returns
    -------
    out : ndarray
    cache : tuple
        ``(dropout_param, mask)``. In mode ``'test'`` the mask is None. Otherwise it is 0 or
        ``1 / p`` for each value.

    Raises
    ------
    ValueError
        If `p`, the mode or the seed is out of its range.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    The mask is ``(np.random.rand(*x.shape) < p) / p``. `seed` seeds NumPy's global generator,
    so that results are the same as those of implementations that draw this mask, too.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import dropout_forward
    >>> dropout_forward(np.ones(4), {'p': 0.5, 'mode': 'train', 'seed': 1})[0]
    array([2., 0., 2., 2.])
    >>> dropout_forward(np.ones(4), {'p': 0.5, 'mode': 'test'})[0]
    array([1., 1., 1., 1.])
    """
    if unknown:
        refuse_keywords("dropout_forward", "dropout_param", unknown, p=0.5, mode="train")
    p, train, seed = _settings(dropout_param)
    x = _arrays.as_float_array("x", x)
    if not train:
        return x.copy(), TupleCache((dropout_param, None))
    if seed is not None:
        np.random.seed(seed)  # noqa: NPY002 - the course's numbers come from the global generator
    kept = np.random.random_sample(x.shape) < p  # noqa: NPY002 - as rand, for any number of axes
    with np.errstate(over="ignore"):  # 1 / p may overflow to inf, but no value is kept for such a small p
        mask = np.where(kept, x.dtype.type(1 / p), x.dtype.type(0))
    return np.multiply(x, mask, out=np.empty_like(x)), TupleCache((dropout_param, mask))


def dropout_backward(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `dropout_forward`: `dout` times the mask.

    Parameters
    ----------
    dout : array_like, of the shape of the input
        The gradient of the loss with respect to the output. It is cast to the dtype of the mask.
    cache : tuple
        From `dropout_forward`.

    Returns
    -------
    dx : ndarray

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import dropout_forward, dropout_backward
    >>> out, cache = dropout_forward(np.ones(4), {'p': 0.5, 'mode': 'train', 'seed': 1})
    >>> dropout_backward(np.arange(4.0), cache)
    array([0., 0., 4., 6.])
    """
    dropout_param, mask = as_cache(cache, "dropout_forward", length=2)
    if not isinstance(dropout_param, Mapping):
        raise TypeError(
            f"cache must be the tuple (dropout_param, mask) of dropout_forward, but its first item is "
            f"{kind_of(dropout_param)}"
        )
    if mask is None:
        if dropout_param.get("mode") == "train":
            raise ValueError(
                "cache holds no mask, but the mode in its dropout_param is 'train'; do not change dropout_param "
                "between dropout_forward and dropout_backward"
            )
        dout = _arrays.as_float_array("dout", dout)
        return dout.copy()
    mask, dout = _arrays.prepare_backward("mask in cache", mask, dout)
    return np.multiply(dout, mask, out=np.empty_like(mask))
