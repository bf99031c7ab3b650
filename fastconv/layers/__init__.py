"""Forward/backward pairs with caches, under the names of CS231n."""

from fastconv.layers.activation import relu_backward, relu_forward
from fastconv.layers.conv import conv, conv_backward, conv_forward
from fastconv.layers.conv_transpose import conv_transpose, conv_transpose_backward, conv_transpose_forward
from fastconv.layers.dense import affine_backward, affine_forward, affine_to_conv, conv_to_affine
from fastconv.layers.function_pooling import pool_backward, pool_forward
from fastconv.layers.global_pooling import (
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
)
from fastconv.layers.loss import softmax_loss
from fastconv.layers.lp_pooling import lp_pool_backward, lp_pool_forward
from fastconv.layers.pooling import (
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    max_unpool,
)
from fastconv.layers.resampling import downsample, upsample
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
    "affine_to_conv",
    "avg_pool_backward",
    "avg_pool_forward",
    "conv",
    "conv_backward",
    "conv_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "conv_to_affine",
    "conv_transpose",
    "conv_transpose_backward",
    "conv_transpose_forward",
    "downsample",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "global_max_pool_backward",
    "global_max_pool_forward",
    "lp_pool_backward",
    "lp_pool_forward",
    "max_pool_backward",
    "max_pool_forward",
    "max_pool_indices",
    "max_unpool",
    "pool_backward",
    "pool_forward",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "upsample",
]
