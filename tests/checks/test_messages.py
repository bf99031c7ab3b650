"""Error messages that guess the intention: each says what was given, and what to write instead."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fastconv import (
    affine_forward,
    conv,
    conv_backward,
    conv_forward,
    conv_geometry,
    conv_output_shape,
    conv_transpose,
    conv_transpose_forward,
    convolution_matrix,
    explain,
    layers,
    max_pool_backward,
    max_pool_forward,
    relu_forward,
    toeplitz_matrix,
    toeplitz_operator,
)
from fastconv.compat import cmu11785, cs231n, dlfs
from fastconv.graph import Tape

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((2, 3, 8, 7)), RNG.standard_normal((6, 3, 3, 3)), np.zeros(6)
SIGNAL, FILTERS = RNG.standard_normal((2, 3, 9)), RNG.standard_normal((4, 3, 3))


# Objects that are not arrays.

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


# Axes in another order, missing axes, or a missing `groups` option.

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
    (lambda: conv_geometry(X.shape[1:], W.shape), r"; give a single image as x_shape=\(1, 3, 8, 7\)$"),
    (lambda: conv_geometry((2, 1, 8, 7), (3, 3)), r"; give a single kernel as w_shape=\(1, 1, 3, 3\)$"),
    (lambda: conv_geometry(X.shape, (3, 3)), r"channels, give w_shape=\(3, 1, 3, 3\) with groups=3$"),
    (
        lambda: toeplitz_matrix(W[0, 0], (1, 8, 7)),
        r"^w has 2 axes, \(3, 3\); .*; give a single kernel as w\[None, None\]$",
    ),
    (lambda: toeplitz_operator(W[0, 0], (3, 8, 7)), r"give np\.tile\(w, \(3, 1, 1, 1\)\) with groups=3$"),
    (
        lambda: toeplitz_matrix(W[0], (1, 8, 8, 8)),
        r"^x_shape \(1, 8, 8, 8\) has 4 .*; give a single kernel as w\[None, None\]$",
    ),
    (lambda: toeplitz_matrix(W, (8, 7)), r"; give a single image as x_shape=\(1, 8, 7\)$"),
    (lambda: conv(X, np.ones((3, 1, 3, 3))), r"got w \(3, 1, 3, 3\) with 1, or groups=3$"),
    (lambda: conv(np.ones((1, 4, 9)), np.ones((8, 2, 3))), "with 2, or groups=2$"),
    (lambda: conv(np.ones((1, 8, 9)), np.ones((8, 2, 3)), groups=2), "with groups=2 w must be .* with 2, or groups=4$"),
    (lambda: toeplitz_matrix(np.ones((3, 1, 3, 3)), (3, 8, 7)), "with 1, or groups=3$"),
    (lambda: conv(X[:, :1], W[0, 0]), r"w has 2 axes.*; give a single kernel as w\[None, None\]$"),
    (lambda: conv(X, W[0, 0]), r"w\[None, None\], for .* one channel; .*np\.tile\(w, \(3, 1, 1, 1\)\) with groups=3$"),
    (lambda: conv(X[0], W), r"x has 3, .*; give a single image as x\[None\]$"),
    (lambda: max_pool_forward(X[0, 0], 2), r"x has 2 axes.*; give a single image as x\[None, None\]$"),
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
    (lambda: Tape().concat([np.ones(3)], axis=1), "axis must be from -1 to 0 for nodes with 1 axis"),
    (lambda: max_pool_backward(X, X), "cache must come from max_pool_forward, got an ndarray"),
    (lambda: conv_backward(X, max_pool_forward(X, 2)[1]), "cache must come from conv_forward, got a MaxPoolCache"),
    (lambda: layers.affine_backward(X, max_pool_forward(X, 2)[1]), "a tuple of 3, got a MaxPoolCache"),
    (lambda: layers.affine_backward(X, layers.conv_relu_forward(X, W, B)[1]), "a tuple of 3, got a tuple of 2"),
    (
        lambda: max_pool_backward(X, max_pool_forward(X, 2)),
        "got a tuple of 2; unpack what max_pool_forward returned: out, cache = max_pool_forward(...)",
    ),
    (
        lambda: layers.dropout_backward(X, (X, X)),
        "cache must be the tuple (dropout_param, mask) of dropout_forward, but its first item is an ndarray",
    ),
]


@pytest.mark.parametrize(("call", "message"), GRAMMAR, ids=[message[:40] for _, message in GRAMMAR])
def test_grammar(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert message in text and (not message.endswith("Cache") or text.endswith(message)), text


# Option names of other libraries.


# Errors use the argument names of the function that the user called.
