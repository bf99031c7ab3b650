"""Batch normalisation of feature vectors and of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.arrays import prepare_inputs
from fastconv.checks.messages import cache_repr, channels_last_hint, count, count_axes
from fastconv.checks.options import as_bool, as_cache, as_number, is_training, merge_options, refuse_keywords
from fastconv.geometry.axis import check_rank
from fastconv.layers.caches import are_usual, check_moments, shape_of
from fastconv.layers.calls import Call, Calls
from fastconv.layers.norm.kernels import (
    BatchNormBackward,
    BatchNormForward,
    NormSizes,
    gradient_calls,
    has_negative,
    norm_call,
)
from fastconv.runtime import memory as _memory

#: The defaults of the options. `mode` has no default. A running average of None is replaced by zeros.
NORM_PARAM: dict[str, Any] = {"mode": None, "eps": 1e-5, "momentum": 0.9, "running_mean": None, "running_var": None}

_FLOAT64 = np.dtype(np.float64)


class BatchNormCache(NamedTuple):
    """The cache of batch normalisation.

    `mean` and `scale` are float64 arrays (C,). `scale` is 1 / sqrt(variance + eps).
    """

    x: np.ndarray
    gamma: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    train: bool

    def __repr__(self) -> str:
        return cache_repr(self)


def check_rows(x: np.ndarray) -> None:
    """Raise an error if x is not (N, D)."""
    if x.ndim != 2:
        raise ValueError(f"x must be (N, D), got {count_axes(x.ndim)}, shape {x.shape}")


#: The hint in the error message for a caller who passes the options as the argument `beta`.
AFTER_BETA = "options are given after beta"


def equal_numbers(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return an array that is True where all numbers along `axes` are equal and finite."""
    most = x.max(axis=axes)
    return (most == x.min(axis=axes)) & np.isfinite(most)


def refuse_zero_variance(zero: np.ndarray, what: str) -> None:
    """Raise an error if any variance is 0. With an eps of 0, such a variance would make the result NaN.

    `zero` is a boolean array that is True where a variance is 0. `what` is a format string that describes one variance
    by its index, such as "the variance of x[:, {}]".
    """
    if zero.any():
        first = tuple(int(i) for i in np.argwhere(zero)[0])
        more = int(np.count_nonzero(zero)) - 1
        raise ValueError(
            f"eps must be above 0, such as 1e-5, because {what.format(*first)} is 0"
            f"{f' (and {more} more variances are)' if more else ''}; with an eps of 0, "
            "(x - mean) / sqrt(variance + eps) would divide by 0"
        )


def _check_channels(name: str, array: np.ndarray, x: np.ndarray) -> None:
    if array.shape != x.shape[1:2]:
        raise ValueError(
            f"{name} has shape {array.shape}, but x {x.shape} has {count(x.shape[1], 'channel')}; "
            f"it must be ({x.shape[1]},)" + channels_last_hint("x", x.shape, array.size)
        )


def _averages(bn_param: Mapping[str, Any], x: np.ndarray, dtype: np.dtype) -> list[np.ndarray]:
    """Return the running mean and the running variance in `bn_param`, or zeros of `dtype` in place of None."""
    averages = []
    for name in ("running_mean", "running_var"):
        value = bn_param.get(name)
        if value is None:
            averages.append(np.zeros(x.shape[1], dtype))
            continue
        array = _arrays.as_array(name, value)
        _check_channels(name, array, x)
        averages.append(array)
    return averages


def _moments(averages: list[np.ndarray], x: np.ndarray, eps: float) -> np.ndarray:
    """Return an array (3, C) for mode 'test'. Its first two rows are the running mean and the running variance. The
    kernel later writes the scale to the last row. Raise an error if the running variance is illegal.
    """
    moments = np.ones((3, x.shape[1]))
    moments[0], moments[1] = averages
    if has_negative(moments[1]):
        raise ValueError(f"running_var in bn_param must be >= 0, got {moments[1].min()} among its values")
    if eps == 0 and x.size:
        refuse_zero_variance(moments[1] == 0, "running_var[{}] in bn_param")
    return moments


def _forward_calls(check_x: Callable[[np.ndarray], None]) -> Calls[Call[NormSizes]]:
    """Return a store for the calls of the forward pass. `check_x` checks the shape of x: vectors, or images."""

    def resolve(
        dtype: np.dtype,
        x: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        bn_param: Mapping[str, Any],
        train: bool,
        eps: float,
    ) -> Call[NormSizes]:
        check_x(x)
        _check_channels("gamma", gamma, x)
        _check_channels("beta", beta, x)
        # Check the running averages before any array is converted. `_forward` checks them again, because a stored call
        # skips this function.
        averages = _averages(bn_param, x, dtype)
        if not train:
            _moments(averages, x, eps)
        return norm_call(BatchNormForward, NormSizes.of(x.shape), dtype)

    return Calls(("x", "gamma", "beta"), resolve, hint=AFTER_BETA)


_vectors = _forward_calls(check_rows)
_images = _forward_calls(lambda x: check_rank("x", x.shape))
_gradients = gradient_calls(BatchNormBackward)


def _forward(x: Any, gamma: Any, beta: Any, bn_param: Any, spatial: bool) -> tuple[np.ndarray, BatchNormCache]:
    if type(bn_param) is not dict and not isinstance(bn_param, MutableMapping):
        if isinstance(beta, Mapping):
            prepare_inputs(lambda *_: (None, None), AFTER_BETA, x=x, gamma=gamma, beta=beta)
        raise TypeError(
            f"bn_param must be a dict, in which running_mean and running_var are stored, got {type(bn_param).__name__}"
        )
    caller = "spatial_batchnorm_forward" if spatial else "batchnorm_forward"
    settings = merge_options(caller, NORM_PARAM, {}, bn_param, "bn_param")
    train = is_training(settings["mode"], "bn_param")
    eps = as_number("eps", settings["eps"], 0)
    momentum = as_number("momentum", settings["momentum"], 0, 1)

    calls = _images if spatial else _vectors
    call, (x, gamma, beta), _ = calls.find((x, gamma, beta), {}, bn_param, train, eps)
    dtype = x.dtype
    averages = _averages(bn_param, x, dtype)
    moments = np.ones((3, x.shape[1])) if train else _moments(averages, x, eps)  # mean, variance, scale
    if x.size:
        out = _memory.empty(x.shape, dtype)
        call.plan.run(x, out, gamma.astype(_FLOAT64), beta.astype(_FLOAT64), moments, eps, train)
        if train and eps == 0:
            # Also look for channels of equal numbers. The rounding error of their mean may make the variance positive.
            equal = equal_numbers(x.reshape(*x.shape[:2], -1), (0, 2))
            refuse_zero_variance((moments[1] == 0) | equal, "the variance of x[:, {}]")
    else:
        out = np.empty(x.shape, dtype)
    if train and x.size:
        # An empty batch has no mean and no variance, so it must not change the running averages.
        sums = np.array(averages, _FLOAT64)
        sums *= momentum
        sums += (1 - momentum) * moments[:2]
        averages = list(sums.astype(_arrays.result_dtype(*averages), copy=False))
    bn_param["running_mean"], bn_param["running_var"] = averages
    return out, BatchNormCache(x, gamma, moments[0], moments[2], train)


def _check_cache(caller: str, x: Any, gamma: Any, mean: Any, scale: Any) -> None:
    """Raise an error if the forward pass cannot have stored these arrays in a cache."""
    shape = shape_of(caller, "x", x, 2, 5)
    _arrays.check_cached(caller, ("x", "gamma"), (x, gamma), (shape, shape[1:2]))
    check_moments(caller, mean, scale, shape[1:2])


def _backward(caller: str, dout: Any, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, gamma, mean, scale, train = as_cache(cache, caller, BatchNormCache)
    if not are_usual(x, gamma, mean, scale):
        _check_cache(caller, x, gamma, mean, scale)
    if train is not True:
        train = as_bool("train in cache", train)
    dout = _arrays.cast_gradient("dout", dout, x.shape, x.dtype)
    if not x.size:
        return np.empty(x.shape, x.dtype), np.zeros(gamma.shape, x.dtype), np.zeros(gamma.shape, x.dtype)
    try:
        call, _, _ = _gradients.find((x,), {}, 1)
        dx = _memory.empty(x.shape, x.dtype)
        sums = call.plan.run(dout, x, dx, _arrays.prepare(gamma, _FLOAT64), mean, scale, train)
    except ValueError:  # an array has the wrong number of elements; `_check_cache` raises an error that names it
        _check_cache(caller, x, gamma, mean, scale)
        raise
    dgamma, dbeta = (array.astype(x.dtype) for array in sums)
    return dx, dgamma, dbeta


def batchnorm_forward(
    x: Any, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any] | None = None, **unknown: Any
) -> tuple[np.ndarray, BatchNormCache]:
    """Batch normalisation of feature vectors: each feature has mean 0 and variance 1 over the batch.

    The result is ``(x - mean) / sqrt(variance + eps) * gamma + beta``. In training, the variance is
    the mean of the squared deviations in the batch: their sum is divided by N, not by N - 1.

    Parameters
    ----------
    x : array_like, (N, D)
    gamma, beta : array_like, (D,)
        Scale and shift.
    bn_param : dict
        ``'mode'``: ``'train'`` uses mean and variance of the batch, ``'test'`` the running
        averages. ``'eps'``: default 1e-5. ``'momentum'``: default 0.9. ``'running_mean'`` and
        ``'running_var'``, (D,): the running averages, zeros at first. Every call writes them.
        With ``'train'`` they become ``momentum * running + (1 - momentum) * value``, unless the
        batch is empty.

    Returns
    -------
    out : ndarray, (N, D)
    cache : tuple
        For `batchnorm_backward`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the mode is unknown, a number is out of its range, a
        `running_var` is negative in mode ``'test'``, or `eps` and a variance are both 0. The
        variance is 0 for a constant feature in mode ``'train'``, or for a `running_var` of 0 in
        mode ``'test'``.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    In mode ``'train'`` squares are summed in the dtype of the result. If numbers differ from their mean by
    more than 1e18 in float32 or 1e150 in float64, sums may be inf, and then `out` is equal to `beta` or NaN.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by
    reducing internal covariate shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import batchnorm_forward
    >>> bn_param = {'mode': 'train', 'eps': 0}
    >>> batchnorm_forward([[1.0, 10.0], [3.0, 30.0]], np.ones(2), np.zeros(2), bn_param)[0]
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> bn_param['running_mean'], bn_param['running_var']
    (array([0.2, 2. ]), array([ 0.1, 10. ]))
    """
    if unknown:
        refuse_keywords("batchnorm_forward", "bn_param", unknown, mode="train")
    return _forward(x, gamma, beta, bn_param, spatial=False)


def batchnorm_backward(dout: Any, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dgamma, dbeta)`` of `batchnorm_forward`. In mode 'test' the running averages are constants.

    Parameters
    ----------
    dout : array_like, (N, D)
    cache : tuple
        From `batchnorm_forward`.

    Returns
    -------
    dx : ndarray, (N, D)
    dgamma, dbeta : ndarray, (D,)

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` does not come from batch normalisation (of vectors or of images), or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import batchnorm_forward, batchnorm_backward
    >>> out, cache = batchnorm_forward([[1.0], [3.0]], np.ones(1), np.zeros(1), {'mode': 'train', 'eps': 0})
    >>> batchnorm_backward(np.array([[1.0], [2.0]]), cache)
    (array([[0.],
           [0.]]), array([1.]), array([3.]))
    """
    return _backward("batchnorm_forward", dout, cache)


def spatial_batchnorm_forward(
    x: Any, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any] | None = None, **unknown: Any
) -> tuple[np.ndarray, BatchNormCache]:
    """Batch normalisation of images: each channel has mean 0 and variance 1 over the batch and all positions.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    gamma, beta : array_like, (C,)
        Scale and shift.
    bn_param : dict
        See `batchnorm_forward` and docs/conventions.md.

    Returns
    -------
    out : ndarray, (N, C, *spatial)
    cache : tuple
        For `spatial_batchnorm_backward`.

    Raises
    ------
    ValueError, TypeError
        See `batchnorm_forward` and docs/conventions.md.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by
    reducing internal covariate shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import spatial_batchnorm_forward
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> spatial_batchnorm_forward(x, np.ones(2), np.array([0.0, 5.0]), {'mode': 'train', 'eps': 0})[0]
    array([[[-1.,  1.],
            [ 4.,  6.]]])
    """
    if unknown:
        refuse_keywords("spatial_batchnorm_forward", "bn_param", unknown, mode="train")
    return _forward(x, gamma, beta, bn_param, spatial=True)


def spatial_batchnorm_backward(dout: Any, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dgamma, dbeta)`` of `spatial_batchnorm_forward`. In mode 'test' the running averages are
    constants.

    Parameters
    ----------
    dout : array_like, (N, C, *spatial)
    cache : tuple
        From `spatial_batchnorm_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
    dgamma, dbeta : ndarray, (C,)

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` does not come from batch normalisation (of vectors or of images), or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import spatial_batchnorm_forward, spatial_batchnorm_backward
    >>> x = np.array([[[1.0, 3.0]]])
    >>> out, cache = spatial_batchnorm_forward(x, np.ones(1), np.zeros(1), {'mode': 'train', 'eps': 0})
    >>> spatial_batchnorm_backward(np.array([[[1.0, 2.0]]]), cache)[1:]
    (array([1.]), array([3.]))
    """
    return _backward("spatial_batchnorm_forward", dout, cache)
