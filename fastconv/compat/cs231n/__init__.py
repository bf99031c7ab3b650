"""The layers of Stanford's CS231n, second assignment: ``from fastconv.compat.cs231n import *``.

Names, argument orders, column orders and cache tuples are the same as the
course's. The restrictions of the course do not apply: filters need not be square, strides
need not tile the image, and every dtype and memory order works. Images are ``(N, C, H, W)``.
"""

from __future__ import annotations

from fastconv.compat.cs231n.columns import (
    col2im_6d_cython,
    col2im_cython,
    col2im_indices,
    get_im2col_indices,
    im2col_cython,
    im2col_indices,
)
from fastconv.compat.cs231n.conv import (
    conv_backward_fast,
    conv_backward_im2col,
    conv_backward_naive,
    conv_backward_strides,
    conv_forward_fast,
    conv_forward_im2col,
    conv_forward_naive,
    conv_forward_strides,
)
from fastconv.compat.cs231n.pool import (
    max_pool_backward_fast,
    max_pool_backward_im2col,
    max_pool_backward_naive,
    max_pool_backward_reshape,
    max_pool_forward_fast,
    max_pool_forward_im2col,
    max_pool_forward_naive,
    max_pool_forward_reshape,
)
from fastconv.compat.cs231n.utils import (
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from fastconv.gradient_check import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    eval_numerical_gradient_blobs,
    eval_numerical_gradient_net,
    grad_check_sparse,
    rel_error,
)
from fastconv.layers import (
    affine_backward,
    affine_forward,
    affine_relu_backward,
    affine_relu_forward,
    batchnorm_backward,
    batchnorm_forward,
    dropout_backward,
    dropout_forward,
    layernorm_backward,
    layernorm_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
    svm_loss,
)

#: The course has two functions for the same gradients. Here both names are one function.
batchnorm_backward_alt = batchnorm_backward

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "col2im_6d_cython",
    "col2im_cython",
    "col2im_indices",
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_naive",
    "conv_backward_strides",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_naive",
    "conv_forward_strides",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "dropout_backward",
    "dropout_forward",
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "eval_numerical_gradient_blobs",
    "eval_numerical_gradient_net",
    "get_im2col_indices",
    "grad_check_sparse",
    "im2col_cython",
    "im2col_indices",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_naive",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_naive",
    "max_pool_forward_reshape",
    "rel_error",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]
