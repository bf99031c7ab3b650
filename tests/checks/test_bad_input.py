"""Every error message names the argument, its value and the legal values; nothing is written before the error."""

import re
from types import MappingProxyType

import numpy as np
import pytest

import fastconv
from fastconv import (
    avg_pool_forward,
    col2im,
    conv,
    conv_backward,
    conv_forward,
    conv_geometry,
    global_avg_pool_forward,
    gradient_check,
    im2col,
    layers,
    max_pool_backward,
    max_pool_forward,
    max_pool_indices,
    max_unpool,
    same_pad,
)
from fastconv.layers import affine_backward, affine_forward, relu_backward, relu_forward, softmax_loss

X, W, B = np.ones((2, 4, 6, 6)), np.ones((8, 4, 3, 3)), np.zeros(8)
OUT, CACHE = conv_forward(X, W, B)
POOLED, POOL_CACHE = max_pool_forward(X, kernel_size=2)
ONES = np.ones(4)


def batch_norm(x=X, gamma=ONES, beta=ONES, bn_param=MappingProxyType({"mode": "train"})):
    return layers.spatial_batchnorm_forward(x, gamma, beta, dict(bn_param) if bn_param is not None else None)


def group_norm(G, gamma=ONES, gn_param=None):
    return layers.spatial_groupnorm_forward(X, gamma, ONES, G, gn_param)


def dropout(p=0.5, mode="train", **rest):
    return layers.dropout_forward(X, {"p": p, "mode": mode, **rest})


CASES = [
    # shapes
    (lambda: conv(X[0], W), ValueError, r"w has 4 axes.*x has 3"),
    (lambda: conv(X[0, 0], W[0, 0]), ValueError, r"x has 2 axes, \(6, 6\); legal are 3 to 5"),
    (lambda: conv(np.ones((1,) * 6), np.ones((1,) * 6)), ValueError, "x has 6 axes"),
    (lambda: conv(X, W[:, :3]), ValueError, r"x \(2, 4, 6, 6\) has 4 channels.*\(F, 4, \*kernel\), got w"),
    (lambda: conv(X, W, B[:3]), ValueError, r"b has shape \(3,\), but w .* has 8 filters"),
    (lambda: conv(X, W, B[:, None]), ValueError, r"b has shape \(8, 1\)"),
    (
        lambda: conv(X, np.ones((8, 4, 7, 3))),
        ValueError,
        "spatial axis 0: the kernel covers 7 cells but the padded input has only 6",
    ),
    (lambda: conv(X, W, dilation=3), ValueError, r"the kernel covers 7 cells \(k=3, dilation=3\)"),
    (lambda: conv(X, np.ones((8, 4, 0, 3))), ValueError, "empty kernel"),
    (lambda: conv(X, np.ones((0, 4, 3, 3))), ValueError, "at least one channel and one filter"),
    (lambda: conv(X[:, :0], W[:, :0]), ValueError, "at least one channel"),
    # options
    (
        lambda: conv(X, W, groups=3),
        ValueError,
        "groups is 3, which must divide both the 4 channels of x and the 8 filters of w; legal are the divisors of 4",
    ),
    (lambda: conv(X, W, groups=0), ValueError, "groups must be an int >= 1, got 0"),
    (lambda: conv(X, W, groups=2), ValueError, r"with groups=2 w must be \(F, 2, \*kernel\)"),
    (lambda: conv(X, W, stride=0), ValueError, "stride must be an int >= 1 or a fractions.Fraction above 0, got 0"),
    (lambda: conv(X, W, stride=-1), ValueError, "got -1"),
    (lambda: conv(X, W, stride=1.5), TypeError, "stride must be an int >= 1 or a fractions.Fraction above 0, got 1.5"),
    (lambda: conv(X, W, stride="1/2"), TypeError, "stride must be an int >= 1 or a fractions.Fraction .*, got '1/2'"),
    (
        lambda: conv_geometry(X.shape, W.shape, stride=[1, 0.5]),
        TypeError,
        r"stride\[1\] must be .*Fraction .*, got 0.5",
    ),
    (lambda: im2col(X, 3, stride=0.5), TypeError, "stride must be an int >= 1, got 0.5"),
    (lambda: conv(X, W, stride=2.0), TypeError, "got 2.0"),
    (lambda: conv(X, W, stride=None), TypeError, "got None"),
    (lambda: conv(X, W, stride=True), TypeError, "got True"),
    (lambda: conv(X, W, stride=(1, 2, 3)), ValueError, r"stride has 3 values, \(1, 2, 3\), for 2 spatial axes"),
    (lambda: conv(X, W, stride=(1, 0)), ValueError, r"stride\[1\] must be an int >= 1 or .*, got 0"),
    (lambda: conv(X, W, stride=np.array([1.0, 1.0])), TypeError, r"stride\[0\] must be an int >= 1 or .*, got 1.0"),
    (lambda: conv(X, W, stride=np.array([True, True])), TypeError, r"stride\[0\] must be an int >= 1 or .*, got True"),
    (
        lambda: conv(X, W, stride=np.ones((2, 2), int)),
        TypeError,
        r"stride\[0\] must be an int >= 1 or .*, got \[1, 1\]",
    ),
    (
        lambda: conv(X, W, stride=np.array([1, 1, 1])),
        ValueError,
        r"stride has 3 values, \[1, 1, 1\], for 2 spatial axes",
    ),
    (
        lambda: conv(X, W, groups=np.ones(9, int)),
        TypeError,
        r"groups must be an int >= 1, got an array of shape \(9,\)",
    ),
    (lambda: conv(X, W, pad=-1), ValueError, "pad must be an int >= 0, got -1"),
    (lambda: conv(X, W, pad=0.5), TypeError, "pad must be an int >= 0, got 0.5"),
    (
        lambda: conv(X, W, pad="some"),
        ValueError,
        "pad is 'some'; legal names are 'valid', 'same', 'same_lower', 'full'",
    ),
    (lambda: conv(X, W, pad=[(1, 1)]), ValueError, r"one \(lo, hi\) pair per axis \(there are 2\)"),
    (lambda: conv(X, W, pad=[1, (1, 2)]), ValueError, r"pad is \[1, \(1, 2\)\]; legal are"),
    (lambda: conv(X, W, pad=[(1, 2), (1, -2)]), ValueError, r"pad\[1\]\[1\] must be an int >= 0, got -2"),
    (lambda: conv(X, W, dilation=0), ValueError, "dilation must be an int >= 1, got 0"),
    (
        lambda: conv(X, W, pad_mode="mirror"),
        ValueError,
        "pad_mode is 'mirror'; legal are 'zeros', 'reflect', 'replicate', 'circular'; did you mean 'reflect'\\?$",
    ),
    (
        lambda: conv(X, W, pad_mode="reflect", pad=6),
        ValueError,
        "spatial axis 0: pad .6, 6. is more than 'reflect' padding can take from 6 cells; legal is at most 5",
    ),
    (lambda: conv(X, W, pad_mode="circular", pad=7), ValueError, "at most 6"),
    (lambda: conv(X[:, :, :0], W, pad_mode="replicate", pad=7), ValueError, "at most 0"),
    (lambda: conv(X, W, flip=1), TypeError, "flip must be True or False, got 1"),
    (lambda: conv(X, W, strict="yes"), TypeError, "strict must be True or False"),
    (lambda: conv(X, W, stride=2, strict=True), ValueError, "spatial axis 0: stride 2 leaves a remainder of 1"),
    (
        lambda: conv(X, W, algorithm="magic"),
        ValueError,
        "algorithm is 'magic'; legal are 'auto', 'exact', 'reference', 'im2col'",
    ),
    (lambda: conv(X, W, algorithm=None), TypeError, "algorithm must be 'auto', 'exact' or a name"),
    (lambda: conv(X, W, threads=0), ValueError, "threads is 0; legal are None, a positive int"),
    (lambda: conv(X, W, threads=1.0), TypeError, "threads must be None or an int, got 1.0"),
    (lambda: conv(X, W, threads=-10_000), ValueError, "threads is -10000, which counts back past"),
    (
        lambda: conv(X, W, strid=2),
        TypeError,
        r"conv\(\) got an unknown option 'strid'; known are stride, pad, dilation, groups",
    ),
    (lambda: conv_forward(X, W, B, {"strid": 2}), TypeError, "unknown option 'strid'; known are stride"),
    (lambda: conv_forward(X, W, B, {"stride": 2}, stride=2), TypeError, "'stride' both in conv_param and as a keyword"),
    (lambda: conv_forward(X, W, B, [1, 2]), TypeError, "conv_param must be a dict of options or None, got list"),
    (lambda: im2col(X, 3, strid=2), TypeError, r"im2col\(\) got an unknown option 'strid'; known are stride, pad"),
    (lambda: col2im(X, X.shape, 3, groups=2), TypeError, "unknown option 'groups'"),
    (
        lambda: max_pool_forward(X, kernel_size=2, pads=2),
        TypeError,
        r"unknown option 'pads'; known are kernel_size.*; did you mean 'pad'\?$",
    ),
    (lambda: conv(X, W, padding=1), TypeError, "did you mean 'pad'\\?$"),
    (lambda: conv_forward(X, W, B, {1: 2}), TypeError, "unknown option 1; known are .*, threads$"),
    (lambda: max_pool_forward(X, kernel_size=2, count_include_pad=True), TypeError, "unknown option"),
    (
        lambda: conv_geometry((1, 1, 5), (1, 1, 3), strides=2),
        TypeError,
        "known are stride, pad, dilation, groups, pad_mode, flip, strict",
    ),
    # shapes given as shapes
    (lambda: conv_geometry(X, W), TypeError, "x_shape must be a tuple of ints, got ndarray; pass x.shape"),
    (lambda: conv_geometry((1, 1, 5.0), (1, 1, 3)), TypeError, r"x_shape\[2\] must be an int >= 0, got 5.0"),
    (lambda: conv_geometry((1, 1, -5), (1, 1, 3)), ValueError, r"x_shape\[2\] must be an int >= 0, got -5"),
    (lambda: conv_geometry((1, 1), (1, 1)), ValueError, "x_shape has 2 axes"),
    (lambda: same_pad(5, 0), ValueError, "k must be an int >= 1"),
    (lambda: same_pad(-1, 3), ValueError, "size must be an int >= 0"),
    # dtypes
    (
        lambda: conv(X * 1j, W),
        TypeError,
        "x has dtype complex128, which fastconv does not support; legal are float32 and float64",
    ),
    (lambda: conv(X, W.astype(object)), TypeError, "w has dtype object"),
    (lambda: conv(X, W, B.astype(np.clongdouble)), TypeError, "b has dtype"),
    (lambda: conv(X.astype(np.longdouble), W), TypeError, "x has dtype") if np.longdouble().itemsize > 8 else None,
    (lambda: conv(None, W), TypeError, "^x is None; it must be an array$"),
    (lambda: conv(np.ma.masked_equal(X, 1), W), TypeError, r"x is a masked array.*x.filled"),
    (lambda: conv(X, W, pad_mode=None), TypeError, "pad_mode is None; legal are 'zeros'"),
    (lambda: conv(X, W, strid=2), TypeError, "threads, out; did you mean 'stride'"),
    (
        lambda: max_pool_forward(X, 2.0),
        TypeError,
        r"pool_param must be a dict of options, a kernel_size \(an int or a sequence of ints\), or None, got a float; "
        r"max_pool_forward\(\) also takes options as keywords",
    ),
    (
        lambda: affine_backward(np.ones((2, 5)), (np.ones((2, 4)) * 1j, np.ones((4, 5)), None)),
        TypeError,
        "x in cache has",
    ),
    (lambda: affine_backward(np.ones((2, 5)), (np.ones((2, 4)), np.ones((4, 5)), [1, 2])), ValueError, "b has shape"),
    (lambda: gradient_check.rel_error(1j, 2), TypeError, "x has dtype complex128"),
    (
        lambda: gradient_check.eval_numerical_gradient_array(np.diag, np.ones(3), np.ones(3)),
        ValueError,
        r"df must have the shape of f",
    ),
    (
        lambda: gradient_check.eval_numerical_gradient(np.sum, np.ones(3), h=0),
        ValueError,
        "h must be a positive number",
    ),
    (
        lambda: gradient_check.grad_check_sparse(np.sum, np.ones(3), np.ones(3), 1.5),
        TypeError,
        "num_checks must be an int",
    ),
    (
        lambda: gradient_check.grad_check_sparse(np.sum, np.ones((0, 3)), np.ones((0, 3))),
        ValueError,
        "x must not be empty, got shape",
    ),
    (lambda: conv_geometry((1, 1, 5), (1, 1, 3)).im2col_bytes(None), TypeError, "dtype must be a dtype, got None"),
    (lambda: conv("image", W), TypeError, "^x is a str: 'image'; it must be an array"),
    (lambda: conv([[1], [1, 2]], W), ValueError, "x cannot be read as an array"),
    (lambda: im2col(X * 1j, 3), TypeError, "x has dtype complex128"),
    (lambda: col2im(np.ones((1, 9, 1), "M8[s]"), (1, 1, 3, 3), 3), TypeError, "cols has dtype datetime64"),
    (lambda: max_pool_forward(X * 1j, kernel_size=2), TypeError, "x has dtype complex128"),
    (lambda: relu_forward(X * 1j), TypeError, "x has dtype complex128"),
    (lambda: affine_forward(X, W * 1j, B), TypeError, "w has dtype complex128"),
    (lambda: softmax_loss(np.ones((2, 2)) * 1j, [0, 1]), TypeError, "x has dtype complex128"),
    (lambda: conv_backward(OUT * 1j, CACHE), TypeError, "dout has dtype complex128"),
    # dout and caches
    (
        lambda: conv_backward(OUT[:1], CACHE),
        ValueError,
        r"dout has shape \(1, 8, 4, 4\), but the output of the forward pass has shape \(2, 8, 4, 4\)",
    ),
    (lambda: conv_backward(OUT, POOL_CACHE), TypeError, "cache must come from conv_forward, got a MaxPoolCache"),
    (lambda: conv_backward(OUT, (X, W, B, {})), TypeError, "cache must come from conv_forward, got a tuple of 4"),
    (lambda: max_pool_backward(OUT, CACHE), TypeError, "cache must come from max_pool_forward"),
    (lambda: max_pool_backward(X, POOL_CACHE), ValueError, "dout has shape"),
    (
        lambda: max_pool_indices(avg_pool_forward(X, kernel_size=2)[1]),
        TypeError,
        "cache must come from max_pool_forward",
    ),
    (lambda: relu_backward(X, (X,)), TypeError, "cache must come from relu_forward"),
    (lambda: relu_backward(X[0], X), ValueError, "dout has shape"),
    (lambda: affine_backward(np.ones((2, 8)), X), TypeError, "cache must come from affine_forward"),
    (lambda: affine_backward(np.ones((3, 2)), (np.ones((3, 4)), np.ones((4, 5)), None)), ValueError, "dout has shape"),
    (lambda: fastconv.conv_relu_backward(OUT, CACHE), TypeError, "cache must come from conv_relu_forward"),
    # lowering
    (lambda: im2col(X, 3.0), TypeError, "kernel_size must be an int >= 1, got 3.0"),
    (lambda: im2col(X, (3, 3, 3)), ValueError, "kernel_size has 3 values"),
    (lambda: im2col(X, 0), ValueError, "kernel_size must be an int >= 1, got 0"),
    (lambda: im2col(X, 7), ValueError, "spatial axis 0: the kernel covers 7 cells"),
    (lambda: im2col(X[0, 0], 3), ValueError, "x has 2 axes"),
    (
        lambda: col2im(np.ones((2, 36, 16)), (2, 4, 6), 3),
        ValueError,
        r"cols has shape \(2, 36, 16\), but lowering x_shape \(2, 4, 6\)",
    ),
    (lambda: col2im(np.ones((2, 36, 15)), X.shape, 3), ValueError, r"gives \(N, C \* taps, L\) = \(2, 36, 16\)"),
    (
        lambda: col2im(np.ones((2, 36, 16)), X, 3),
        TypeError,
        "x_shape must be a tuple of ints, got ndarray; pass x.shape",
    ),
    # pooling
    (lambda: max_pool_forward(X), TypeError, "needs kernel_size, or pool_height and pool_width"),
    (lambda: max_pool_forward(X, {"pool_height": 2}), TypeError, "needs both pool_height and pool_width"),
    (
        lambda: max_pool_forward(X, {"pool_height": 2, "pool_width": 2}, kernel_size=2),
        TypeError,
        "both kernel_size and pool_height",
    ),
    (
        lambda: max_pool_forward(X[0], {"pool_height": 2, "pool_width": 2}),
        ValueError,
        "need two spatial axes, but x has 1",
    ),
    (
        lambda: max_pool_forward(X, kernel_size=2, pad=2),
        ValueError,
        r"spatial axis 0: pad \(2, 2\) must be smaller than the 2 cells the window covers",
    ),
    (
        lambda: max_pool_forward(X, kernel_size=2, pad="full"),
        ValueError,
        "pad is 'full'; legal names are 'valid', 'same', 'same_lower'$",
    ),
    (lambda: max_pool_forward(X, kernel_size=7), ValueError, "the kernel covers 7 cells"),
    (
        lambda: max_pool_forward(X[:, :, :1], kernel_size=(2, 1), stride=1, dilation=2, pad=(2, 0)),
        ValueError,
        "a window would read no cell of the input, which has 1 cell$",
    ),
    (lambda: max_pool_forward(X, kernel_size=2, ceil_mode=1), TypeError, "ceil_mode must be True or False"),
    (
        lambda: avg_pool_forward(X, kernel_size=2, count_include_pad=0),
        TypeError,
        "count_include_pad must be True or False",
    ),
    (lambda: global_avg_pool_forward(X[:, :, :0]), ValueError, "empty spatial axis"),
    (
        lambda: max_unpool(POOLED, max_pool_indices(POOL_CACHE), (2, 4, 3, 3)),
        ValueError,
        "indices must be from 0 to 8, because a plane .* got 0 to 28",
    ),
    (
        lambda: max_unpool(POOLED, -1 - max_pool_indices(POOL_CACHE), X.shape),
        ValueError,
        "indices must be from 0 to 35, .* got -29 to -1",
    ),
    (lambda: max_unpool(POOLED, POOLED, X.shape), TypeError, "indices must be integers, got dtype float64"),
    (
        lambda: max_unpool(POOLED, max_pool_indices(POOL_CACHE)[:1], X.shape),
        ValueError,
        "indices must have the shape of x",
    ),
    (
        lambda: max_unpool(POOLED, max_pool_indices(POOL_CACHE), (6, 6)),
        ValueError,
        r"out_shape must be .* got \(6, 6\)",
    ),
    # dense layers and loss
    (lambda: affine_forward(X, W, B), ValueError, "w must be .D, M., got shapes"),
    (lambda: affine_forward(X, np.ones((143, 8)), B), ValueError, "x .* has 144 values per row, but w .* takes 143"),
    (lambda: affine_forward(X, np.ones((144, 8)), B[:2]), ValueError, r"b must be \(8,\)"),
    (lambda: softmax_loss(X, [0, 1]), ValueError, r"x must be \(N, C\) scores"),
    (lambda: softmax_loss(np.ones((2, 3)), [0]), ValueError, r"y must be \(2,\)"),
    (lambda: softmax_loss(np.ones((2, 3)), [0, 3]), ValueError, "y must have labels from 0 to 2, got 0 to 3"),
    (lambda: softmax_loss(np.ones((2, 3)), [0.0, 1.0]), TypeError, "y must be integer labels"),
    (lambda: layers.svm_loss(X, [0, 1]), ValueError, r"x must be \(N, C\) scores"),
    (lambda: layers.svm_loss(np.ones((2, 3)), [0, -1]), ValueError, "y must have labels from 0 to 2, got -1 to 0"),
    (lambda: layers.svm_loss(np.ones((2, 3)), [0.0, 1.0]), TypeError, "y must be integer labels"),
    # normalisation, dropout and activations
    (lambda: batch_norm(bn_param=None), TypeError, "bn_param must be a dict, in which running_mean"),
    (lambda: batch_norm(bn_param={}), ValueError, "mode in bn_param is None; legal are 'train' and 'test'"),
    (lambda: batch_norm(bn_param={"mode": "eval"}), ValueError, "mode in bn_param is 'eval'"),
    (
        lambda: batch_norm(bn_param={"mode": "train", "epsilon": 1}),
        TypeError,
        "unknown option 'epsilon'; known are mode",
    ),
    (lambda: batch_norm(bn_param={"mode": "train", "eps": -1}), ValueError, "eps must be a finite number >= 0, got -1"),
    (lambda: batch_norm(bn_param={"mode": "train", "eps": True}), TypeError, "eps must be a finite number >= 0"),
    (
        lambda: batch_norm(bn_param={"mode": "train", "eps": 10**400}),
        ValueError,
        "eps must be a finite number >= 0, got 1000",
    ),
    (
        lambda: batch_norm(bn_param={"mode": "test", "running_var": np.array([1, 1, -0.5, 1])}),
        ValueError,
        r"running_var in bn_param must be >= 0, got -0\.5 among its values",
    ),
    (
        lambda: batch_norm(bn_param={"mode": "train", "momentum": 1.5}),
        ValueError,
        "momentum must be a finite number >= 0 and <= 1, got 1.5",
    ),
    (
        lambda: batch_norm(bn_param={"mode": "test", "running_mean": np.ones(3)}),
        ValueError,
        r"running_mean has shape \(3,\), but x .* has 4 channels; it must be \(4,\)",
    ),
    (lambda: batch_norm(gamma=np.ones(3)), ValueError, r"gamma has shape \(3,\), but x .* has 4 channels"),
    (lambda: batch_norm(beta=np.ones((4, 1))), ValueError, r"beta has shape \(4, 1\)"),
    (lambda: batch_norm(x=X[0, 0]), ValueError, r"x has 2 axes, \(6, 6\); legal are 3 to 5: \(N, C, W\)"),
    (lambda: batch_norm(x=X * 1j), TypeError, "x has dtype complex128"),
    (
        lambda: layers.batchnorm_forward(X, np.ones(4), np.ones(4), {"mode": "train"}),
        ValueError,
        r"x must be \(N, D\), got 4 axes, shape \(2, 4, 6, 6\)",
    ),
    (
        lambda: layers.batchnorm_backward(X, (X, X)),
        TypeError,
        "cache must come from batchnorm_forward, got a tuple of 2",
    ),
    (lambda: layers.spatial_batchnorm_backward(X[:1], batch_norm()[1]), ValueError, "dout has shape"),
    (
        lambda: layers.spatial_groupnorm_backward(X, batch_norm()[1]),
        TypeError,
        "cache must come from spatial_groupnorm",
    ),
    (lambda: group_norm(3), ValueError, r"G is 3, which does not divide the 4 channels of x \(2, 4, 6, 6\)"),
    (lambda: group_norm(0), ValueError, "G must be an int >= 1, got 0"),
    (lambda: group_norm(2.0), TypeError, "G must be an int >= 1, got 2.0"),
    (lambda: group_norm(2, np.ones((1, 4, 1))), ValueError, r"it must be \(1, 4, 1, 1\) or \(4,\)"),
    (lambda: group_norm(2, gn_param={"eps": np.nan}), ValueError, "eps must be a finite number >= 0, got nan"),
    (lambda: group_norm(2, gn_param=1e-5), TypeError, "gn_param must be a dict of options or None, got float$"),
    (
        lambda: layers.layernorm_forward(X[0, 0], ONES, ONES, 1e-5),
        TypeError,
        "ln_param must be a dict of options or None, got float$",
    ),
    (lambda: layers.layernorm_forward(X, np.ones(4), np.ones(4)), ValueError, r"x must be \(N, D\)"),
    (
        lambda: layers.layernorm_forward(np.ones((2, 3)), np.ones((1, 3)), np.ones(3)),
        ValueError,
        r"gamma has shape \(1, 3\), .* it must be \(3,\)",
    ),
    (lambda: layers.lrn_forward(X, {}), ValueError, "lrn_param has no 'size'"),
    (lambda: layers.lrn_forward(X, None), ValueError, "lrn_param has no 'size'"),
    (lambda: layers.lrn_forward(X, 5), TypeError, "lrn_param must be a dict with 'size', got int$"),
    (
        lambda: layers.lrn_forward(X, {"size": 10**400}),
        ValueError,
        "size must be an int >= 1 and <= 9223372036854775807",
    ),
    (lambda: layers.lrn_forward(X, {"size": 5, "k": 10**400}), ValueError, "k must be a finite number, got 1000"),
    (lambda: layers.lrn_forward(X, {"size": 0}), ValueError, "size must be an int >= 1 and .*, got 0"),
    (lambda: layers.lrn_forward(X, {"size": 5, "k": "2"}), TypeError, "k must be a finite number, got '2'"),
    (lambda: layers.lrn_forward(X, {"size": 5, "bias": 2}), TypeError, "unknown option 'bias'; known are size, alpha"),
    (lambda: layers.lrn_forward(X[0, 0], {"size": 5}), ValueError, "x has 2 axes"),
    (lambda: layers.lrn_backward(X, X), TypeError, "cache must come from lrn_forward"),
    (lambda: layers.lrn_backward(X[:1], layers.lrn_forward(X, {"size": 5})[1]), ValueError, "dout has shape"),
    (
        lambda: dropout(p=0),
        ValueError,
        "p is the probability of keeping a value and must be above 0 and at most 1, got 0",
    ),
    (
        lambda: dropout(p=1.5),
        ValueError,
        "p is the probability of keeping a value and must be above 0 and at most 1, got 1.5",
    ),
    (lambda: dropout(p=-1), ValueError, "p is the probability of keeping a value .* got -1"),
    (lambda: dropout(p=np.nan), ValueError, "p must be a finite number, got nan"),
    (lambda: layers.dropout_forward(X, 0.5), TypeError, "dropout_param must be a dict with 'p' and 'mode', got float$"),
    (lambda: dropout(p=None), ValueError, "dropout_param has no 'p'"),
    (lambda: dropout(mode=None), ValueError, "mode in dropout_param is None; legal are 'train' and 'test'"),
    (lambda: dropout(seed=1.5), TypeError, "seed must be an int >= 0 and <= 4294967295, got 1.5"),
    (lambda: dropout(seed=2**32), ValueError, "seed must be an int >= 0 and <= 4294967295, got 4294967296"),
    (lambda: dropout(rate=1), TypeError, "unknown option 'rate'; known are p, mode, seed"),
    (
        lambda: layers.dropout_backward(X, (X, X)),
        TypeError,
        r"cache must be the tuple \(dropout_param, mask\) of dropout_forward",
    ),
    (lambda: layers.dropout_backward(X[:1], dropout()[1]), ValueError, "dout has shape"),
    (lambda: layers.leaky_relu_forward(X, "0.1"), TypeError, "slope must be a finite number, got '0.1'"),
    (lambda: layers.leaky_relu_forward(X, np.inf), ValueError, "slope must be a finite number, got inf"),
    (lambda: layers.leaky_relu_backward(X, X), TypeError, "cache must come from leaky_relu_forward"),
    (lambda: layers.sigmoid_backward(X, (X,)), TypeError, "cache must come from sigmoid_forward"),
    (lambda: layers.tanh_backward(X[:1], X), ValueError, "dout has shape"),
    (lambda: layers.tanh_forward(X * 1j), TypeError, "x has dtype complex128"),
    (lambda: layers.conv_bn_relu_backward(OUT, CACHE), TypeError, "cache must come from conv_bn_relu_forward"),
    # sizes past what can be addressed
    (lambda: conv_geometry((2**40, 2**30, 3), (1, 2**30, 3)), ValueError, "more elements than can be addressed"),
    (lambda: conv(X, W, pad=2**62), ValueError, "more elements than can be addressed"),
    (lambda: conv(X, W, pad=10**40), ValueError, "more elements than can be addressed"),
    (
        lambda: im2col(X[:1, :1], 3, pad=2**29),
        ValueError,
        "the lowered matrix of shape .* bytes, more than can be addressed",
    ),
    (lambda: max_unpool(np.ones((1, 1, 1)), [[[0]]], (1, 1, 2**62)), ValueError, "more than can be addressed"),
]


@pytest.mark.parametrize(("call", "error", "message"), [case for case in CASES if case])
def test_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert re.search(message, str(caught.value)), str(caught.value)
