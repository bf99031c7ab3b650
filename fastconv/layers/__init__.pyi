# The public names of the package: this is the only list of them. `__init__.py` reads it, so a layer is added here.
from fastconv.layers.activation import (
    leaky_relu_backward as leaky_relu_backward,
    leaky_relu_forward as leaky_relu_forward,
    relu_backward as relu_backward,
    relu_forward as relu_forward,
    sigmoid_backward as sigmoid_backward,
    sigmoid_forward as sigmoid_forward,
    tanh_backward as tanh_backward,
    tanh_forward as tanh_forward,
)
from fastconv.layers.convolution.conv import conv as conv, conv_backward as conv_backward, conv_forward as conv_forward
from fastconv.layers.convolution.conv_transpose import (
    conv_transpose as conv_transpose,
    conv_transpose_backward as conv_transpose_backward,
    conv_transpose_forward as conv_transpose_forward,
)
from fastconv.layers.convolution.resampling import downsample as downsample, upsample as upsample
from fastconv.layers.dense import (
    affine_backward as affine_backward,
    affine_forward as affine_forward,
    affine_to_conv as affine_to_conv,
    conv_to_affine as conv_to_affine,
)
from fastconv.layers.dropout import dropout_backward as dropout_backward, dropout_forward as dropout_forward
from fastconv.layers.loss import softmax_loss as softmax_loss, svm_loss as svm_loss
from fastconv.layers.norm.batchnorm import (
    batchnorm_backward as batchnorm_backward,
    batchnorm_forward as batchnorm_forward,
    spatial_batchnorm_backward as spatial_batchnorm_backward,
    spatial_batchnorm_forward as spatial_batchnorm_forward,
)
from fastconv.layers.norm.groupnorm import (
    layernorm_backward as layernorm_backward,
    layernorm_forward as layernorm_forward,
    spatial_groupnorm_backward as spatial_groupnorm_backward,
    spatial_groupnorm_forward as spatial_groupnorm_forward,
)
from fastconv.layers.norm.response import lrn_backward as lrn_backward, lrn_forward as lrn_forward
from fastconv.layers.pool.function_pooling import pool_backward as pool_backward, pool_forward as pool_forward
from fastconv.layers.pool.global_pooling import (
    global_avg_pool_backward as global_avg_pool_backward,
    global_avg_pool_forward as global_avg_pool_forward,
    global_max_pool_backward as global_max_pool_backward,
    global_max_pool_forward as global_max_pool_forward,
)
from fastconv.layers.pool.lp_pooling import lp_pool_backward as lp_pool_backward, lp_pool_forward as lp_pool_forward
from fastconv.layers.pool.pooling import (
    avg_pool_backward as avg_pool_backward,
    avg_pool_forward as avg_pool_forward,
    max_pool_backward as max_pool_backward,
    max_pool_forward as max_pool_forward,
    max_pool_indices as max_pool_indices,
    max_unpool as max_unpool,
)
from fastconv.layers.sandwich import (
    affine_relu_backward as affine_relu_backward,
    affine_relu_forward as affine_relu_forward,
    conv_bn_relu_backward as conv_bn_relu_backward,
    conv_bn_relu_forward as conv_bn_relu_forward,
    conv_relu_backward as conv_relu_backward,
    conv_relu_forward as conv_relu_forward,
    conv_relu_pool_backward as conv_relu_pool_backward,
    conv_relu_pool_forward as conv_relu_pool_forward,
)

__all__: list[str]
