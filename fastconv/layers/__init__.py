"""Forward/backward pairs with caches, under the names of CS231n."""

from fastconv.layers.activation import relu_backward, relu_forward
from fastconv.layers.conv import conv, conv_backward, conv_forward
from fastconv.layers.dense import affine_backward, affine_forward
from fastconv.layers.global_pooling import (
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
)
from fastconv.layers.loss import softmax_loss
from fastconv.layers.pooling import (
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    max_unpool,
)
from fastconv.layers.sandwich import (
    affine_relu_backward,
    affine_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "avg_pool_backward",
    "avg_pool_forward",
    "conv",
    "conv_backward",
    "conv_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "global_max_pool_backward",
    "global_max_pool_forward",
    "max_pool_backward",
    "max_pool_forward",
    "max_pool_indices",
    "max_unpool",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
]
