"""Error messages that guess what was meant: each says what was given, and what to type."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fastconv import (
    affine_forward,
    avg_pool_forward,
    col2im,
    conv,
    conv_backward,
    conv_forward,
    conv_geometry,
    conv_output_shape,
    conv_transpose,
    conv_transpose_forward,
    convolution_matrix,
    downsample,
    explain,
    im2col,
    layers,
    lp_pool_forward,
    max_pool_backward,
    max_pool_forward,
    pool_forward,
    relu_forward,
    toeplitz_matrix,
    toeplitz_operator,
    upsample,
)
from fastconv.compat import cmu11785, cs231n, dlfs
from fastconv.graph import Tape

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((2, 3, 8, 7)), RNG.standard_normal((6, 3, 3, 3)), np.zeros(6)
SIGNAL, FILTERS = RNG.standard_normal((2, 3, 9)), RNG.standard_normal((4, 3, 3))


def median_forward(x, pool_param=None, **options):
    return pool_forward(x, pool_param, lambda windows: np.median(windows, axis=-1), **options)


POOLINGS = [max_pool_forward, avg_pool_forward, lp_pool_forward, median_forward]


# Other things in place of an array.

PAIR = conv_forward(X, W, None)
NODE = Tape().param(W, "w")
LAST, LAST_1D = np.ones((2, 8, 7, 3)), np.ones((2, 9, 3))
PICTURE = sparse.csr_array(np.eye(8))
OPERATOR = toeplitz_operator(W, (3, 8, 7))
TO_ARRAY = r"of scipy.sparse; give x\.toarray\(\), or multiply with .*: A @ x, where A = toeplitz_matrix"
NO_ENTRIES = r"of scipy.sparse, and toeplitz_operator has no entries .*toarray\(\), or make the matrix: A @ "

INSTEAD = [
    (lambda: conv_forward(X, W, {"stride": 1}), "^b is a dict: options are the fourth argument"),
    (lambda: conv_transpose_forward(X, W, {"stride": 1}), "^b is a dict: options are the fourth argument"),
    (lambda: conv(X, W, {"stride": 1}), r"^b is a dict: options are keywords, as in conv\(x, w, stride=2\)$"),
    (lambda: affine_forward(X, W, {}), "^b is a dict; it must be an array$"),
    (lambda: layers.spatial_batchnorm_forward(X, np.ones(3), {"mode": "train"}), "^beta is a dict: options are given"),
    (lambda: conv(X, NODE), "^w is a Node: call it through the tape, as in tape"),
    (lambda: conv_backward(NODE, PAIR[1]), "^dout is a Node: call it through the tape"),
    (lambda: max_pool_forward(None, 2), "^x is None; it must be an array$"),
    (
        lambda: conv_forward(X, "w.npy", None),
        "^w is a str: 'w.npy'; it must be an array, which .* not read from files$",
    ),
    (
        lambda: conv(Path("x.png"), W),
        "^x is a PosixPath: .*x.png.*; it must be an array" if os.name == "posix" else "x is a",
    ),
    (lambda: conv("x" * 10**6, W), r"^x is a str: 'x{199}\.\.\.; it must be an array"),
    (lambda: conv(np.ones, W), "^x is a.*, which can be called; it must be an array$"),
    (lambda: conv(PAIR, W), "^x is a tuple of an ndarray and a ConvCache, .*unpack it: out, cache = ...$"),
    (
        lambda: max_pool_forward(relu_forward(X), 2),
        r"^x is a tuple of an ndarray and an ndarray, .*out, cache = .*np.stack",
    ),
    (lambda: relu_forward(layers.affine_forward(X, np.ones((168, 2)), None)), "^x is a tuple of an ndarray and a Tup"),
    (lambda: relu_forward(conv_backward(PAIR[0], PAIR[1])), "^x is a tuple of 3 with an ndarray among them; give one"),
    (lambda: conv(PICTURE, W), f"^x is a csr_array {TO_ARRAY}"),
    (lambda: conv(X, sparse.coo_matrix(np.eye(3))), r"^w is a coo_matrix of scipy.sparse; give w\.toarray\(\), or mul"),
    (lambda: max_pool_forward(PICTURE, 2), f"^x is a csr_array {TO_ARRAY}"),
    (lambda: toeplitz_matrix(PICTURE, (3, 8, 7)), r"^w is a csr_array of scipy.sparse; give w\.toarray\(\)$"),
    (lambda: toeplitz_operator(PICTURE, (3, 8, 7)), r"^w is a csr_array of scipy.sparse; give w\.toarray\(\)$"),
]


@pytest.mark.parametrize(("call", "message"), INSTEAD, ids=[message[:40] for _, message in INSTEAD])
def test_what_came_instead_of_an_array(call, message):
    with pytest.raises(TypeError) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)


def test_two_arrays_in_a_list_are_still_a_batch():
    assert np.array_equal(conv([X[0], X[1]], W), conv(X, W))
    assert np.array_equal(relu_forward(((1.0, -2.0), (3.0, 4.0)))[0], [[1, 0], [3, 4]])


SPARSE_OPERANDS = [
    lambda a, x, y: a @ x,
    lambda a, x, y: a @ x[:, [0]],
    lambda a, x, y: a * x,
    lambda a, x, y: a.dot(x),
    lambda a, x, y: a.matvec(x[:, [0]]),
    lambda a, x, y: a.matmat(x),
    lambda a, x, y: a.T @ y,
    lambda a, x, y: a.H @ y[:, [0]],
    lambda a, x, y: a.rmatvec(y[:, [0]]),
    lambda a, x, y: a.rmatmat(y),
    lambda a, x, y: y.T @ a,
]


@pytest.mark.parametrize("call", SPARSE_OPERANDS)
def test_an_operator_and_sparse_arrays(call):
    x, y = (sparse.csr_array(np.eye(n, 3)) for n in OPERATOR.shape[::-1])
    with pytest.raises(TypeError) as caught:
        call(OPERATOR, x, y)
    assert re.search(NO_ENTRIES, str(caught.value)), str(caught.value)


IMAGES = np.ones((2, 3, 8, 7))
HIGHER = [
    (lambda a: a @ IMAGES, r"^x has 4 axes, \(2, 3, 8, 7\); give x\.reshape\(len\(x\), -1\)\.T$"),
    (lambda a: a @ IMAGES[0], r"^x has 3 axes, \(3, 8, 7\); give x\.ravel\(\)$"),
    (lambda a: a.dot(IMAGES[:1].tolist()), r"^x has 4 axes, \(1, 3, 8, 7\); give x\.ravel\(\)$"),
    (lambda a: a @ IMAGES[:, :1], r"; give x\.ravel\(\) or x\.reshape\(len\(x\), -1\)\.T, of 168 elements an image$"),
    (lambda a: a.T @ np.ones((2, 6, 6, 5)), r"; give x\.reshape\(len\(x\), -1\)\.T$"),
    (lambda a: np.ones((2, 6, 6, 5)) @ a, r"^x has 4 axes, \(2, 6, 6, 5\); give x\.reshape\(len\(x\), -1\)$"),
    (lambda a: a.matvec(IMAGES[0]), r"; give x\.ravel\(\)$"),
    (lambda a: a.matvec(IMAGES), r"; give x\[i\]\.ravel\(\)$"),
    (lambda a: a.matmat(IMAGES), r"^X has 4 axes, .*; give X\.reshape\(len\(X\), -1\)\.T$"),
    (lambda a: a.matmat(IMAGES[0]), r"; give X\.reshape\(1, -1\)\.T$"),
    (lambda a: a.rmatvec(np.ones((6, 6, 5))), r"; give x\.ravel\(\)$"),
    (lambda a: a.rmatmat(np.ones((2, 6, 6, 5))), r"; give X\.reshape\(len\(X\), -1\)\.T$"),
]


@pytest.mark.parametrize(("call", "message"), HIGHER)
def test_an_operator_and_images_with_their_axes(call, message):
    with pytest.raises(ValueError) as caught:
        call(OPERATOR)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_what_an_operator_tells_to_type_works():
    x, y = X.reshape(len(X), -1).T, conv(X, W).reshape(len(X), -1)
    np.testing.assert_allclose(OPERATOR @ x, y.T, atol=1e-12)
    np.testing.assert_allclose(OPERATOR.matmat(X[0].reshape(1, -1).T)[:, 0], y[0], atol=1e-12)
    np.testing.assert_allclose(y @ OPERATOR, (OPERATOR.T @ y.T).T, atol=1e-12)


def test_the_transpose_of_an_operator_is_the_matrix_transposed():
    A, y = toeplitz_matrix(W, (3, 8, 7)), RNG.standard_normal((OPERATOR.shape[0], 2))
    x = RNG.standard_normal((OPERATOR.shape[1], 2))
    for transposed in (OPERATOR.T, OPERATOR.H):
        assert transposed.shape == A.shape[::-1]
        np.testing.assert_allclose(transposed @ y, A.T @ y, atol=1e-12)
        np.testing.assert_allclose(transposed.rmatmat(x), A @ x, atol=1e-12)
        np.testing.assert_allclose(transposed.T @ (1j * x[:, 0]), 1j * (A @ x[:, 0]), atol=1e-12)


# Axes in another order, missing axes, or forgotten groups.

FITS = [
    (lambda: conv(LAST, W), r"channels last: give x\.transpose\(0, 3, 1, 2\)$"),
    (lambda: conv(LAST_1D, FILTERS), r"channels last: give x\.transpose\(0, 2, 1\)$"),
    (lambda: conv(np.ones((1, 5, 6, 7, 3)), np.ones((4, 3, 3, 3, 3))), r"give x\.transpose\(0, 4, 1, 2, 3\)$"),
    (lambda: conv(X, np.ones((2, 2, 3, 4))), r"give w\.transpose\(3, 2, 0, 1\), since its filters are last$"),
    (
        lambda: conv(LAST, np.ones((2, 2, 3, 4))),
        r"give x\.transpose\(0, 3, 1, 2\), and give w\.transpose\(3, 2, 0, 1\), since",
    ),
    (lambda: conv_transpose(LAST, np.ones((3, 2, 4, 4))), r"channels last: give x\.transpose\(0, 3, 1, 2\)$"),
    (
        lambda: conv_transpose(X, np.ones((4, 4, 2, 3))),
        r"give w\.transpose\(3, 2, 0, 1\), since its channels are last$",
    ),
    (
        lambda: layers.spatial_batchnorm_forward(LAST, np.ones(3), np.ones(3), {"mode": "train"}),
        r"transpose\(0, 3, 1, 2",
    ),
    (lambda: layers.spatial_groupnorm_forward(LAST, np.ones(3), np.ones(3), 1), r"x\.transpose\(0, 3, 1, 2\)$"),
    (lambda: cs231n.conv_forward_naive(LAST, W, B, {"stride": 1, "pad": 1}), r"x\.transpose\(0, 3, 1, 2\)$"),
    (lambda: dlfs.Convolution(W, B).forward(LAST), r"x\.transpose\(0, 3, 1, 2\)$"),
    (lambda: cmu11785.Conv2d(3, 4, 3, 1).forward(LAST), r"A\.transpose\(0, 3, 1, 2\)$"),
    (lambda: layers.spatial_groupnorm_forward(LAST, np.ones(3), np.ones(3), 3), r"x\.transpose\(0, 3, 1, 2\)$"),
    (
        lambda: toeplitz_matrix(W, (8, 7, 3)),
        r"^x_shape \(8, 7, 3\) has .*; x_shape has its channels last: give x_shape=\(3, 8, 7\)$",
    ),
    (lambda: toeplitz_operator(FILTERS, (9, 3)), r"; x_shape has its channels last: give x_shape=\(3, 9\)$"),
    (
        lambda: toeplitz_matrix(np.ones((2, 2, 3, 4)), (3, 8, 7)),
        r"give w\.transpose\(3, 2, 0, 1\), since its filters are last$",
    ),
    (lambda: conv_geometry(LAST.shape, W.shape), r"; x_shape has its channels last: give x_shape=\(2, 3, 8, 7\)$"),
    (lambda: conv_output_shape(LAST.shape, W.shape, stride=2, pad=[1, 1]), r"give x_shape=\(2, 3, 8, 7\)$"),
    (lambda: explain(LAST_1D.shape, FILTERS.shape), r"; x_shape has its channels last: give x_shape=\(2, 3, 9\)$"),
    (
        lambda: conv_geometry(LAST.shape, (2, 2, 3, 4)),
        r"give x_shape=\(2, 3, 8, 7\), and give w_shape=\(4, 3, 2, 2\), since its filters are last$",
    ),
    (lambda: conv_geometry(X.shape, (3, 1, 3, 3)), "with 1, or groups=3$"),
    (lambda: conv_geometry(X.shape[1:], W.shape), r"; one image by itself is x_shape=\(1, 3, 8, 7\)$"),
    (lambda: conv_geometry((2, 1, 8, 7), (3, 3)), r"; one kernel by itself is w_shape=\(1, 1, 3, 3\)$"),
    (lambda: conv_geometry(X.shape, (3, 3)), r"alike it is w_shape=\(3, 1, 3, 3\) with groups=3$"),
    (
        lambda: toeplitz_matrix(W[0, 0], (1, 8, 7)),
        r"^w has 2 axes, \(3, 3\); .*; one kernel by itself is w\[None, None\]$",
    ),
    (lambda: toeplitz_operator(W[0, 0], (3, 8, 7)), r"it is np\.tile\(w, \(3, 1, 1, 1\)\) with groups=3$"),
    (
        lambda: toeplitz_matrix(W[0], (1, 8, 8, 8)),
        r"^x_shape \(1, 8, 8, 8\) has 4 .*; one kernel by itself is w\[None, None\]$",
    ),
    (lambda: toeplitz_matrix(W, (8, 7)), r"; one image by itself is x_shape=\(1, 8, 7\)$"),
    (lambda: conv(X, np.ones((3, 1, 3, 3))), r"got w \(3, 1, 3, 3\) with 1, or groups=3$"),
    (lambda: conv(np.ones((1, 4, 9)), np.ones((8, 2, 3))), "with 2, or groups=2$"),
    (lambda: conv(np.ones((1, 8, 9)), np.ones((8, 2, 3)), groups=2), "with groups=2 w must be .* with 2, or groups=4$"),
    (lambda: toeplitz_matrix(np.ones((3, 1, 3, 3)), (3, 8, 7)), "with 1, or groups=3$"),
    (lambda: conv(X[:, :1], W[0, 0]), r"w has 2 axes.*; one kernel by itself is w\[None, None\]$"),
    (lambda: conv(X, W[0, 0]), r"w\[None, None\], for .* one channel; .*np\.tile\(w, \(3, 1, 1, 1\)\) with groups=3$"),
    (lambda: conv(X[0], W), r"x has 3, .*; one image by itself is x\[None\]$"),
    (lambda: max_pool_forward(X[0, 0], 2), r"x has 2 axes.*; one image by itself is x\[None, None\]$"),
    (
        lambda: conv(SIGNAL, FILTERS, pad=(4, 0)),
        r"^pad has 2 values, \(4, 0\), for 1 spatial axis; .* is \[\(4, 0\)\]$",
    ),
    (
        lambda: conv(X, W, pad=(1, 2, 3, 4)),
        r"pad has 4 values, .*; one \(lo, hi\) pair per axis is \[\(1, 2\), \(3, 4\)\]$",
    ),
    (lambda: max_pool_forward(SIGNAL, 3, pad=[1, 0]), r"one \(lo, hi\) pair per axis is \[\(1, 0\)\]$"),
]


@pytest.mark.parametrize(("call", "message"), FITS, ids=[message[-40:] for _, message in FITS])
def test_what_would_fit(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)


def test_what_is_told_to_type_works():
    x, w = RNG.standard_normal((2, 8, 7, 3)), RNG.standard_normal((2, 2, 3, 4))
    assert conv(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)).shape == (2, 4, 7, 6)
    blur = RNG.standard_normal((3, 3))
    every = conv(X, np.tile(blur, (3, 1, 1, 1)), groups=3)
    np.testing.assert_allclose(every[:, 1:2], conv(X[:, 1:2], blur[None, None]))
    assert conv(SIGNAL, FILTERS, pad=[(4, 0)]).shape == (2, 4, 11)


def test_no_hint_where_none_is_right():
    for call in (
        lambda: conv(X, np.ones((6, 5, 3, 3))),
        lambda: conv_transpose(X, np.ones((6, 5, 3, 3))),
        lambda: conv(X, np.ones((6, 2, 3, 3))),
        lambda: conv(SIGNAL, FILTERS, pad=(1, 2, 3)),
        lambda: conv(X, W, B, stride=(1, 1, 1)),
        lambda: conv_geometry(X.shape, (6, 5, 3, 3)),
        lambda: conv_geometry(LAST.shape, W.shape, stride=(1, 1, 1), groups=np.array([1, 2])),
        lambda: toeplitz_matrix(np.ones((6, 5, 3, 3)), X.shape[1:]),
        lambda: toeplitz_matrix(W, (8,)),
        lambda: toeplitz_matrix(W[0, 0], ()),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert re.search(
            r"with \d$|got w \([\d, ]+\)$|give an int or \d of them$|batch$|\(C, \*spatial\)$", str(caught.value)
        ), str(caught.value)


# Grammar.

GRAMMAR = [
    (lambda: convolution_matrix(np.ones((3, 3)), 5), "shape (5,) has 1 axis, but h (3, 3) has 2"),
    (lambda: conv(np.ones(3), W), "x has 1 axis, (3,); legal are 3 to 5"),
    (
        lambda: conv(SIGNAL, FILTERS, stride=(1, 2)),
        "stride has 2 values, (1, 2), for 1 spatial axis; give an int or 1 of",
    ),
    (lambda: conv(X, W, stride=(1,)), "stride has 1 value, (1,), for 2 spatial axes"),
    (lambda: conv(X[:, :1], W), "x (2, 1, 8, 7) has 1 channel, so"),
    (lambda: conv(X, W[:1], B), "has 1 filter; b must be"),
    (lambda: Tape().concat([np.ones(3)], axis=1), "axis is 1, but the nodes have 1 axis"),
    (lambda: max_pool_backward(X, X), "cache must come from max_pool_forward, got an ndarray"),
    (lambda: conv_backward(X, max_pool_forward(X, 2)[1]), "cache must come from conv_forward, got a MaxPoolCache"),
    (lambda: layers.affine_backward(X, max_pool_forward(X, 2)[1]), "a tuple of 3, got a MaxPoolCache"),
    (lambda: layers.affine_backward(X, layers.conv_relu_forward(X, W, B)[1]), "a tuple of 3, got a tuple of 2"),
    (
        lambda: max_pool_backward(X, max_pool_forward(X, 2)),
        "got a tuple of 2; unpack what max_pool_forward returned: out, cache = max_pool_forward(...)",
    ),
    (lambda: layers.dropout_backward(X, (X, X)), "cache must come from dropout_forward, got a tuple with an ndarray"),
]


@pytest.mark.parametrize(("call", "message"), GRAMMAR, ids=[message[:40] for _, message in GRAMMAR])
def test_grammar(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert message in text and (not message.endswith("Cache") or text.endswith(message)), text


# Names of other libraries.

POOL = {"kernel_size": 2}
OPTIONS = [
    (conv, {"mode": "same"}, "pad"),
    (conv, {"mode": "valid"}, "pad"),
    (conv, {"mode": "mirror"}, "pad_mode"),
    (conv, {"padding": 1}, "pad"),
    (conv, {"strides": 2}, "stride"),
    (conv, {"dilation_rate": 2}, "dilation"),
    (conv, {"num_groups": 3}, "groups"),
    (conv, {"padding_mode": "reflect"}, "pad_mode"),
    (conv, {"boundary": "wrap"}, "pad_mode"),
    (conv, {"workers": 2}, "threads"),
    (conv, {"method": "fft"}, "algorithm"),
    (conv, {"Stride": 2}, "stride"),
    (conv, {"size": 3}, None),
    (conv, {"ksize": 3}, None),
    (max_pool_forward, {"size": 2}, "kernel_size"),
    (max_pool_forward, {"ksize": 2}, "kernel_size"),
    (max_pool_forward, {"pool_size": 2}, "kernel_size"),
    (max_pool_forward, {"kernel": 2}, "kernel_size"),
    (max_pool_forward, {**POOL, "mode": "same"}, "pad"),
    (max_pool_forward, {**POOL, "strides": 2}, "stride"),
    (lp_pool_forward, {**POOL, "norm_type": 1}, "p"),
    (lambda x, w, **o: im2col(x, 3, **o), {"padding": 1}, "pad"),
    (lambda x, w, **o: im2col(x, 3, **o), {"dilations": 1}, "dilation"),
    (lambda x, w, **o: conv_transpose(x, w, **o), {"output_padding": 1}, "output_pad"),
    (lambda x, w, **o: toeplitz_matrix(w, x.shape[1:], **o), {"mode": "same"}, "pad"),
    (lambda x, w, **o: im2col(x, **o), {"ksize": 2}, "kernel_size"),
    (lambda x, w, **o: im2col(x, 2, **o), {"size": 2}, "kernel_size"),
    (lambda x, w, **o: col2im(np.ones((2, 12, 42)), x.shape, **o), {"ksize": 2}, "kernel_size"),
    (lambda x, w, **o: upsample(x, **o), {"size": 2}, "factor"),
    (lambda x, w, **o: upsample(x, **o), {"scale_factor": 2}, "factor"),
    (lambda x, w, **o: downsample(x, **o), {"stride": 2}, "factor"),
    (lambda x, w, **o: downsample(x, 2, **o), {"threads": 2}, None),
    (lambda x, w, **o: cs231n.max_pool_forward_fast(x, o), {"pool_size": 2}, "pool_height"),
    (lambda x, w, **o: layers.spatial_groupnorm_forward(x, np.ones(3), np.ones(3), 1, o), {"epsilon": 1}, "eps"),
]


@pytest.mark.parametrize(("function", "options", "meant"), OPTIONS)
def test_options_of_other_libraries(function, options, meant):
    with pytest.raises(TypeError) as caught:
        function(X, W, **options) if function not in POOLINGS else function(X, **options)
    text = str(caught.value)
    assert "got an unknown option " in text and "; known are " in text
    assert text.endswith(f"; did you mean {meant!r}?") if meant else "did you mean" not in text, text


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: im2col(X), "im2col() needs kernel_size"),
        (lambda: im2col(X, stride=2), "im2col() needs kernel_size"),
        (lambda: col2im(np.ones((2, 12, 42)), X.shape), "col2im() needs kernel_size"),
        (lambda: upsample(X), "upsample() needs factor"),
        (lambda: downsample(X), "downsample() needs factor"),
    ],
)
def test_what_is_missing_is_named(call, name):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == f"{name}, an int or one per spatial axis"


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"layout": "NHWC"}, (0, 3, 1, 2)),
        ({"layout": "NWC"}, (0, 2, 1)),
        ({"data_format": "NDHWC"}, (0, 4, 1, 2, 3)),
        ({"data_format": "channels_last"}, (0, 3, 1, 2)),
        ({"channel_axis": -1}, (0, 3, 1, 2)),
    ],
)
def test_layouts_are_not_served(options, order):
    end = f"; x is always (N, C, *spatial): where its channels are last, give x.transpose{order}"
    for call in (
        lambda: conv(X, W, **options),
        lambda: max_pool_forward(X, 2, **options),
        lambda: im2col(X, 2, **options),
        lambda: toeplitz_matrix(W, (3, 8, 7), **options),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        text = str(caught.value)
        assert f"got an unknown option {next(iter(options))!r}; known are " in text and text.endswith(end), text


BORDERS = {
    "reflect": ("mirror", "reflect_101", "reflect101", "BORDER_REFLECT_101", "Reflect"),
    "replicate": ("nearest", "edge", "border_replicate"),
    "circular": ("wrap", "periodic", "grid-wrap", "grid_wrap"),
    "zeros": ("constant", "zero", "fill", "zeroes"),
}


@pytest.mark.parametrize(("name", "meant"), [(name, border) for border, names in BORDERS.items() for name in names])
def test_borders_of_other_libraries(name, meant):
    with pytest.raises(ValueError) as caught:
        conv(X, W, pad=1, pad_mode=name)
    assert str(caught.value).startswith(f"pad_mode is {name!r}; legal are 'zeros', 'reflect', ")
    assert str(caught.value).endswith(f"; did you mean {meant!r}?")


def test_a_border_that_is_not_served_says_what_to_do():
    for name in ("symmetric", "symm", "grid-mirror"):
        with pytest.raises(ValueError, match=r"np\.pad's 'symmetric' and scipy\.ndimage's 'reflect'.*give pad=0$"):
            conv(X, W, pad=1, pad_mode=name)
    with pytest.raises(ValueError, match=r"'zeros', 'reflect', 'replicate', 'circular'$"):
        conv(X, W, pad=1, pad_mode="magic")


@pytest.mark.parametrize(
    ("pad", "end"),
    [
        ("SAME", "; did you mean 'same'?"),
        ("VALID", "; did you mean 'valid'?"),
        ("same_upper", "; did you mean 'same'?"),
        ("half", "; did you mean 'same'?"),
        ("sam", "; did you mean 'same'?"),
        ("constant", "pad is a number of cells, and pad_mode='zeros' where the function takes that"),
        ("reflect", "pad is a number of cells, and pad_mode='reflect' where the function takes that"),
        ("magic", "'same_lower', 'full'"),
    ],
)
def test_names_of_padding(pad, end):
    with pytest.raises(ValueError, match=f"^pad is {pad!r}; legal names are 'valid', 'same'") as caught:
        conv(X, W, pad=pad)
    assert str(caught.value).endswith(end)


# Arguments under the names that the caller knows.

CONV_PARAM, LARGE = {"stride": 1, "pad": 1}, np.broadcast_to(np.float32(1), (1, 1, 2**30, 2**30))
NAMES = [
    (lambda: col2im(np.ones((2, 36, 16)), (2, 4), 3), r"^x_shape has 2 axes, \(2, 4\)"),
    (lambda: col2im(np.ones((2, 36, 16)), (2, 0, 6, 6), 3), r"^x_shape \(2, 0, 6, 6\) has no channels"),
    (lambda: im2col(X[:, :0], 3), r"^x \(2, 0, 8, 7\) has no channels; at least one is needed$"),
    (
        lambda: conv_transpose(SIGNAL, np.ones((3, 2, 3)), pad=10),
        r"axis 0: pad \(10, 10\) would crop all of the 11 cells",
    ),
    (lambda: max_pool_forward(X, {"pool_height": 0, "pool_width": 2}), "^pool_height must be an int >= 1, got 0$"),
    (lambda: avg_pool_forward(X, pool_height=2, pool_width=2.0), "^pool_width must be an int >= 1, got 2.0$"),
    (lambda: upsample(X, 2**62), rf"^factor {2**62} makes of x \(2, 3, 8, 7\) the result .* more elements than can be"),
    (lambda: upsample(LARGE, (1, 2)), r"^factor \(1, 2\) makes of x .* more bytes in float32 than can be addressed$"),
    (lambda: upsample(X[:0], 2**40), r"^factor 1099511627776 makes of x \(0, 3, 8, 7\)"),
    (lambda: convolution_matrix([1, 2], 2**62), rf"^shape \({2**62},\) and h \(2,\) are too large together: "),
    (lambda: convolution_matrix([1, 2], 2**63), rf"^shape \({2**63},\) has more elements than can be addressed"),
    (
        lambda: convolution_matrix(np.ones((1, 2)), (2**31, 2**31)),
        r"^shape \(2147483648, 2147483648\) and h \(1, 2\) are",
    ),
    (
        lambda: toeplitz_matrix(W, (3, 2**29, 2**29)),
        r"^x_shape \(3, 536870912, 536870912\) and w \(6, 3, 3, 3\) are too",
    ),
    (
        lambda: im2col(LARGE, 3),
        r"^x \(1, 1, 1073741824, 1073741824\) with kernel_size \(3, 3\) is too large: the lowered",
    ),
    (
        lambda: conv(LARGE, np.ones((99, 1, 1, 1))),
        r"^x \(1, 1, .*\) and w \(99, 1, 1, 1\) give the output .* more elements",
    ),
    (lambda: cs231n.conv_forward_fast(X, W, B, {"steps": 1}), r"^conv_forward_fast\(\) got an unknown option 'steps'"),
    (lambda: cs231n.conv_forward_fast(X, W, B, 1), r"^conv_param must be a dict .*, got int"),
    (
        lambda: cs231n.conv_backward_fast(X, (X,)),
        "^cache must come from conv_forward_fast, a tuple of 5, got a tuple of 1",
    ),
    (lambda: cs231n.conv_backward_strides(X, (X,)), "^cache must come from conv_forward_strides, a tuple of 5, got a"),
    (
        lambda: cs231n.max_pool_backward_fast(X, ("im2col", ())),
        "^cache must come from max_pool_forward_fast, a tuple of 4",
    ),
    (lambda: cs231n.conv_forward_im2col(X, W[0, 0], B, CONV_PARAM), r"^w must be \(F, C, HH, WW\), got shape \(3, 3\)"),
    (
        lambda: layers.spatial_batchnorm_forward(X, np.ones(3), np.ones(3), {"mod": "train"}),
        r"^spatial_batchnorm_forward\(\) got an unknown option 'mod'",
    ),
]


@pytest.mark.parametrize(("call", "message"), NAMES, ids=[message[:40] for _, message in NAMES])
def test_names_that_the_caller_knows(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)


ONES = np.ones(3)
KEYWORDS = [
    (
        lambda: layers.dropout_forward(X, p=0.25),
        "dropout_forward",
        "p",
        "{'p': 0.25, 'mode': 'train'} as dropout_param",
    ),
    (
        lambda: layers.dropout_forward(X, mode="test", seed=1),
        "dropout_forward",
        "mode",
        "{'mode': 'test', 'seed': 1, 'p': 0.5} as dropout_param",
    ),
    (
        lambda: layers.batchnorm_forward(X[..., 0, 0], ONES, ONES, eps=1e-3),
        "batchnorm_forward",
        "eps",
        "{'eps': 0.001, 'mode': 'train'} as bn_param",
    ),
    (
        lambda: layers.spatial_batchnorm_forward(X, ONES, ONES, mode="test"),
        "spatial_batchnorm_forward",
        "mode",
        "{'mode': 'test'} as bn_param",
    ),
    (
        lambda: layers.layernorm_forward(X[..., 0, 0], ONES, ONES, eps=1),
        "layernorm_forward",
        "eps",
        "{'eps': 1} as ln_param",
    ),
    (
        lambda: layers.spatial_groupnorm_forward(X, ONES, ONES, 1, eps=1),
        "spatial_groupnorm_forward",
        "eps",
        "{'eps': 1} as gn_param",
    ),
    (lambda: layers.lrn_forward(X, alpha=1e-3), "lrn_forward", "alpha", "{'alpha': 0.001, 'size': 5} as lrn_param"),
]


@pytest.mark.parametrize(("call", "function", "option", "give"), KEYWORDS, ids=[case[1] for case in KEYWORDS])
def test_options_that_belong_into_a_dict(call, function, option, give):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == f"{function}() got an unknown option {option!r}; its options are a dict: give {give}"
