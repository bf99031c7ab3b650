"""Layer and group normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr, channels_last_hint, count
from fastconv.checks.options import as_cache, as_groups, as_number, merge_options, refuse_keywords
from fastconv.geometry.axis import check_rank
from fastconv.layers.caches import are_usual, check_moments, shape_of
from fastconv.layers.calls import Call, Calls
from fastconv.layers.norm.batchnorm import (
    AFTER_BETA,
    NORM_PARAM,
    check_rows,
    equal_numbers,
    refuse_zero_variance,
)
from fastconv.layers.norm.kernels import GroupNormBackward, GroupNormForward, NormSizes, gradient_calls, norm_call
from fastconv.runtime import memory as _memory


class GroupNormCache(NamedTuple):
    """The cache of layer and group normalisation.

    `mean` and `scale` are float64 arrays (N, G), with a number for each group of channels of each image. `scale` is
    1 / sqrt(variance + eps).
    """

    x: np.ndarray
    gamma: np.ndarray
    beta_shape: tuple[int, ...]
    mean: np.ndarray
    scale: np.ndarray

    def __repr__(self) -> str:
        return cache_repr(self)


def _check_channels(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, spatial: bool) -> None:
    C = x.shape[1]
    flat, whole = (C,), (1, C, *(1,) * (x.ndim - 2))
    for name, array in (("gamma", gamma), ("beta", beta)):
        if array.shape != flat and not (spatial and array.shape == whole):
            legal, last = f"{whole} or {flat}" if spatial else f"{flat}", channels_last_hint("x", x.shape, array.size)
            raise ValueError(
                f"{name} has shape {array.shape}, but x {x.shape} has {count(C, 'channel')}; it must be {legal}{last}"
            )


def _forward_calls(spatial: bool) -> Calls[Call[NormSizes]]:
    """Return a store for the calls of the forward pass: for images if `spatial` is true, otherwise for vectors."""

    def resolve(dtype: np.dtype, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: Any) -> Call[NormSizes]:
        check_rank("x", x.shape) if spatial else check_rows(x)
        _check_channels(x, gamma, beta, spatial)
        return norm_call(GroupNormForward, NormSizes.of(x.shape, as_groups("G", groups, x.shape)), dtype)

    return Calls(("x", "gamma", "beta"), resolve, hint=AFTER_BETA)


_vectors, _images = _forward_calls(spatial=False), _forward_calls(spatial=True)
_gradients = gradient_calls(GroupNormBackward)


def _forward(
    caller: str, x: Any, gamma: Any, beta: Any, groups: Any, param: Any, spatial: bool
) -> tuple[np.ndarray, GroupNormCache]:
    param_name = "gn_param" if spatial else "ln_param"
    settings = merge_options(caller, NORM_PARAM, {}, param, param_name, legal="a dict of options or None")
    eps = as_number("eps", settings["eps"], 0)

    calls = _images if spatial else _vectors
    call, (x, gamma, beta), _ = calls.find((x, gamma, beta), {"G": groups}, groups)
    C, groups = x.shape[1], call.geometry.G
    if not x.size:
        none = np.empty((0, groups))
        return np.empty(x.shape, x.dtype), GroupNormCache(x, gamma, beta.shape, none, none)
    out = _memory.empty(x.shape, x.dtype)
    mean, scale = call.plan.run(x, out, gamma.reshape(C), beta.reshape(C), eps)
    if eps == 0:
        what = "the variance of group {1} of x[{0}]" if spatial else "the variance of x[{0}]"
        equal = equal_numbers(x.reshape(len(x), groups, -1), (2,))
        refuse_zero_variance(np.isinf(scale) | equal, what)
    return out, GroupNormCache(x, gamma, beta.shape, mean, scale)


def _backward(caller: str, dout: Any, cache: GroupNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, gamma, beta_shape, mean, scale = as_cache(cache, caller, GroupNormCache)
    usual = are_usual(x, gamma, mean, scale) and mean.shape == scale.shape == (len(x), mean.shape[-1])
    if not usual or type(beta_shape) is not tuple or beta_shape != gamma.shape:
        _check_cache(caller, x, gamma, beta_shape, mean, scale)
    dout = _arrays.cast_gradient("dout", dout, x.shape, x.dtype)
    if not x.size:
        return np.empty(x.shape, x.dtype), np.zeros(gamma.shape, x.dtype), np.zeros(beta_shape, x.dtype)
    try:
        call, _, _ = _gradients.find((x,), {"G": (groups := mean.shape[1])}, groups)
        dx = _memory.empty(x.shape, x.dtype)
        dgamma, dbeta = call.plan.run(dout, x, dx, gamma.reshape(-1), mean, scale)
    except ValueError:  # an array has the wrong number of elements; `_check_cache` raises an error that names it
        _check_cache(caller, x, gamma, beta_shape, mean, scale)
        raise
    return dx, dgamma.astype(x.dtype).reshape(gamma.shape), dbeta.astype(x.dtype).reshape(beta_shape)


def _check_cache(caller: str, x: Any, gamma: Any, beta_shape: Any, mean: Any, scale: Any) -> None:
    """Raise an error if the forward pass cannot have made the cache."""
    N, C, *rest = shape = shape_of(caller, "x", x, 2, 5)
    flat, whole = (C,), (1, C, *(1,) * len(rest)) if rest else (C,)
    given = flat if type(gamma) is np.ndarray and gamma.ndim == 1 else whole
    _arrays.check_cached(caller, ("x", "gamma"), (x, gamma), (shape, given))
    if type(beta_shape) is not tuple or beta_shape not in (flat, whole):
        raise ValueError(f"beta_shape in cache must be {flat} or {whole}, as {caller} stored it, got {beta_shape!r}")
    groups = shape_of(caller, "mean", mean, 2, 2)[1]
    check_moments(caller, mean, scale, (N if x.size else 0, groups))
    if groups < 1 or C % groups:
        raise ValueError(f"cache holds mean and scale of {groups} groups, which do not divide the {C} channels of x")


def layernorm_forward(
    x: Any, gamma: Any, beta: Any, ln_param: Mapping[str, Any] | None = None, **unknown: Any
) -> tuple[np.ndarray, GroupNormCache]:
    """Layer normalisation: the features of each row have mean 0 and variance 1.

    The result is ``(x - mean) / sqrt(variance + eps) * gamma + beta``, both in training and in testing.

    Parameters
    ----------
    x : array_like, (N, D)
    gamma, beta : array_like, (D,)
        Scale and shift.
    ln_param : dict, optional
        ``'eps'``: 1e-5. The other keys of a ``bn_param`` are accepted and ignored.

    Returns
    -------
    out : ndarray, (N, D)
    cache : tuple
        For `layernorm_backward`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, `eps` is negative, or it is 0 and a row is constant.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    Squares are summed as `batchnorm_forward` does in training, with the same limits.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016, arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import layernorm_forward
    >>> layernorm_forward([[1.0, 3.0], [10.0, 30.0]], np.ones(2), np.zeros(2), {'eps': 0})[0]
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    if unknown:
        refuse_keywords("layernorm_forward", "ln_param", unknown)
    return _forward("layernorm_forward", x, gamma, beta, 1, ln_param, spatial=False)


def layernorm_backward(dout: Any, cache: GroupNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dgamma, dbeta)`` of `layernorm_forward`.

    Parameters
    ----------
    dout : array_like, (N, D)
    cache : tuple
        From `layernorm_forward`.

    Returns
    -------
    dx : ndarray, (N, D)
    dgamma, dbeta : ndarray, (D,)

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` does not come from layer or group normalisation, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import layernorm_forward, layernorm_backward
    >>> out, cache = layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), {'eps': 0})
    >>> layernorm_backward(np.array([[1.0, 2.0]]), cache)
    (array([[0., 0.]]), array([-1.,  2.]), array([1., 2.]))
    """
    return _backward("layernorm_forward", dout, cache)


def spatial_groupnorm_forward(
    x: Any, gamma: Any, beta: Any, G: Any, gn_param: Mapping[str, Any] | None = None, **unknown: Any
) -> tuple[np.ndarray, GroupNormCache]:
    """Group normalisation of images: in each image, each of the G groups of channels has mean 0 and variance 1.

    The result is ``(x - mean) / sqrt(variance + eps) * gamma + beta``, both in training and in testing.
    With one group this is layer normalisation. With one channel in each group it is instance
    normalisation.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    gamma, beta : array_like, (C,) or (1, C, 1, 1), with a 1 for each spatial axis
        Scale and shift.
    G : int
        The number of groups. It divides C.
    gn_param : dict, optional
        ``'eps'``: 1e-5. The other keys of a ``bn_param`` are accepted and ignored.

    Returns
    -------
    out : ndarray, (N, C, *spatial)
    cache : tuple
        For `spatial_groupnorm_backward`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, `G` does not divide the channels, `eps` is negative, or
        it is 0 and a group is constant.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    Squares are summed as `batchnorm_forward` does in training, with the same limits.

    References
    ----------
    Y. Wu, K. He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import spatial_groupnorm_forward
    >>> x = np.array([[[1.0, 3.0], [3.0, 1.0], [10.0, 30.0], [30.0, 10.0]]])
    >>> spatial_groupnorm_forward(x, np.ones(4), np.zeros(4), 2, {'eps': 0})[0]
    array([[[-1.,  1.],
            [ 1., -1.],
            [-1.,  1.],
            [ 1., -1.]]])
    """
    if unknown:
        refuse_keywords("spatial_groupnorm_forward", "gn_param", unknown)
    return _forward("spatial_groupnorm_forward", x, gamma, beta, G, gn_param, spatial=True)


def spatial_groupnorm_backward(dout: Any, cache: GroupNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dgamma, dbeta)`` of `spatial_groupnorm_forward`.

    Parameters
    ----------
    dout : array_like, (N, C, *spatial)
    cache : tuple
        From `spatial_groupnorm_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
    dgamma, dbeta : ndarray
        The shapes are those of `gamma` and `beta`.

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` does not come from layer or group normalisation, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import spatial_groupnorm_forward, spatial_groupnorm_backward
    >>> x, gamma = np.array([[[[1.0, 3.0]]]]), np.ones((1, 1, 1, 1))
    >>> out, cache = spatial_groupnorm_forward(x, gamma, np.zeros_like(gamma), 1, {'eps': 0})
    >>> dx, dgamma, dbeta = spatial_groupnorm_backward(np.array([[[[1.0, 2.0]]]]), cache)
    >>> dgamma, dbeta
    (array([[[[1.]]]]), array([[[[3.]]]]))
    """
    return _backward("spatial_groupnorm_forward", dout, cache)
