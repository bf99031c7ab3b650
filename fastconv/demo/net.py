"""A LeNet-style net that calls forward and backward functions, and the optimiser that trains the net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv.layers import (
    affine_backward,
    affine_forward,
    conv_backward,
    conv_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
)

Params = dict[str, Any]

CONV = {"stride": 1, "pad": 1}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


class Ops(NamedTuple):
    """Convolution and pooling functions: those of fastconv, or those of `plain`, which need only NumPy."""

    conv_forward: Callable = conv_forward
    conv_backward: Callable = conv_backward
    pool_forward: Callable = max_pool_forward
    pool_backward: Callable = max_pool_backward


FASTCONV = Ops()


def init(rng: np.random.Generator, dtype: type = np.float32, widths: tuple[int, int, int] = (32, 64, 128)) -> Params:
    """Return initial weights of a net for 8x8 images: two convolutions with pooling, and two fully connected layers.

    The standard deviations of the weights follow He et al., "Delving deep into rectifiers", arXiv:1502.01852.
    """
    first, second, hidden = widths
    shapes = {"w1": (first, 1, 3, 3), "w2": (second, first, 3, 3), "w3": (second * 4, hidden), "w4": (hidden, 10)}
    params = {}
    for i, (name, shape) in enumerate(shapes.items(), 1):
        fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        params[name] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(dtype)
        params[f"b{i}"] = np.zeros(shape[0] if len(shape) == 4 else shape[1], dtype)
    return params


def scores(params: Params, x: np.ndarray, ops: Ops = FASTCONV) -> tuple[np.ndarray, list]:
    """Return the class scores of images (N, 1, 8, 8), and the caches of the layers in order."""
    caches = []
    for i in (1, 2):
        x, conv_cache = ops.conv_forward(x, params[f"w{i}"], params[f"b{i}"], CONV)
        x, relu_cache = relu_forward(x)
        x, pool_cache = ops.pool_forward(x, POOL)
        caches += [conv_cache, relu_cache, pool_cache]
    flat = x.shape
    x, affine_cache = affine_forward(x, params["w3"], params["b3"])
    x, relu_cache = relu_forward(x)
    x, last_cache = affine_forward(x, params["w4"], params["b4"])
    return x, [*caches, affine_cache, relu_cache, last_cache, flat]


def step(params: Params, x: np.ndarray, y: np.ndarray, ops: Ops = FASTCONV) -> tuple[float, Params]:
    """Return the loss and the gradients of one batch."""
    out, caches = scores(params, x, ops)
    *stages, affine_cache, relu_cache, last_cache, flat = caches
    loss, d = softmax_loss(out, y)
    grads: Params = {}
    d, grads["w4"], grads["b4"] = affine_backward(d, last_cache)
    d, grads["w3"], grads["b3"] = affine_backward(relu_backward(d, relu_cache), affine_cache)
    d = d.reshape(flat)
    for i in (2, 1):
        conv_cache, relu_cache, pool_cache = stages[3 * i - 3 : 3 * i]
        d = relu_backward(ops.pool_backward(d, pool_cache), relu_cache)
        d, grads[f"w{i}"], grads[f"b{i}"] = ops.conv_backward(d, conv_cache)
    return loss, grads


class Adam:
    """The Adam optimiser: Kingma, Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980."""

    def __init__(self, params: Params, rate: float) -> None:
        self.rate, self.t = rate, 0
        self.mean = {name: np.zeros_like(p) for name, p in params.items()}
        self.square = {name: np.zeros_like(p) for name, p in params.items()}

    def update(self, params: Params, grads: Params, scale: float) -> None:
        """Update `params` in place by one step, whose learning rate is `self.rate` times `scale`."""
        self.t += 1
        rate = self.rate * scale * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        for name, grad in grads.items():
            self.mean[name] += 0.1 * (grad - self.mean[name])
            self.square[name] += 0.001 * (grad * grad - self.square[name])
            params[name] -= (rate * self.mean[name] / (np.sqrt(self.square[name]) + 1e-8)).astype(params[name].dtype)


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the images, each shifted at random by up to one pixel along each axis, and filled up with zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, x.shape[2:], axis=(2, 3))
    down, right = rng.integers(0, 3, (2, len(x)))
    return np.ascontiguousarray(windows[np.arange(len(x)), :, down, right])
