"""Forward/backward pairs with caches, under the names of CS231n.

docs/conventions.md has what is common to all: shapes, dtypes, threads, `out`, caches and errors.
"""

import typing as _typing
from importlib import import_module as _import_module

from fastconv.layers.activation import (
    leaky_relu_backward,
    leaky_relu_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from fastconv.layers.convolution.conv import conv, conv_backward, conv_forward
from fastconv.layers.convolution.conv_transpose import conv_transpose, conv_transpose_backward, conv_transpose_forward
from fastconv.layers.convolution.resampling import downsample, upsample
from fastconv.layers.dense import affine_backward, affine_forward, affine_to_conv, conv_to_affine
from fastconv.layers.pool.global_pooling import (
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
)
from fastconv.layers.pool.pooling import (
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    max_unpool,
)

if _typing.TYPE_CHECKING:
    from fastconv.layers.dropout import dropout_backward, dropout_forward
    from fastconv.layers.loss import softmax_loss, svm_loss
    from fastconv.layers.norm.batchnorm import (
        batchnorm_backward,
        batchnorm_forward,
        spatial_batchnorm_backward,
        spatial_batchnorm_forward,
    )
    from fastconv.layers.norm.groupnorm import (
        layernorm_backward,
        layernorm_forward,
        spatial_groupnorm_backward,
        spatial_groupnorm_forward,
    )
    from fastconv.layers.norm.response import lrn_backward, lrn_forward
    from fastconv.layers.pool.function_pooling import pool_backward, pool_forward
    from fastconv.layers.pool.lp_pooling import lp_pool_backward, lp_pool_forward
    from fastconv.layers.sandwich import (
        affine_relu_backward,
        affine_relu_forward,
        conv_bn_relu_backward,
        conv_bn_relu_forward,
        conv_relu_backward,
        conv_relu_forward,
        conv_relu_pool_backward,
        conv_relu_pool_forward,
    )

#: The names of each module that is imported on first use, because most programs use few of them.
_LATER = {
    "norm.batchnorm": (
        "batchnorm_backward",
        "batchnorm_forward",
        "spatial_batchnorm_backward",
        "spatial_batchnorm_forward",
    ),
    "dropout": ("dropout_backward", "dropout_forward"),
    "pool.function_pooling": ("pool_backward", "pool_forward"),
    "norm.groupnorm": (
        "layernorm_backward",
        "layernorm_forward",
        "spatial_groupnorm_backward",
        "spatial_groupnorm_forward",
    ),
    "loss": ("softmax_loss", "svm_loss"),
    "pool.lp_pooling": ("lp_pool_backward", "lp_pool_forward"),
    "norm.response": ("lrn_backward", "lrn_forward"),
    "sandwich": (
        "affine_relu_backward",
        "affine_relu_forward",
        "conv_bn_relu_backward",
        "conv_bn_relu_forward",
        "conv_relu_backward",
        "conv_relu_forward",
        "conv_relu_pool_backward",
        "conv_relu_pool_forward",
    ),
}
_MODULES = {name: module for module, names in _LATER.items() for name in names}

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "affine_to_conv",
    "avg_pool_backward",
    "avg_pool_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "conv",
    "conv_backward",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
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
    "dropout_backward",
    "dropout_forward",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "global_max_pool_backward",
    "global_max_pool_forward",
    "layernorm_backward",
    "layernorm_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "lp_pool_backward",
    "lp_pool_forward",
    "lrn_backward",
    "lrn_forward",
    "max_pool_backward",
    "max_pool_forward",
    "max_pool_indices",
    "max_unpool",
    "pool_backward",
    "pool_forward",
    "relu_backward",
    "relu_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
    "tanh_backward",
    "tanh_forward",
    "upsample",
]


def __getattr__(name: str) -> _typing.Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
