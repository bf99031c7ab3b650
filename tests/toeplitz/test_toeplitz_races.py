"""Weights that change while their matrix is made, and exceptions of signal handlers that resemble fastconv's own."""

import numpy as np
import pytest

from fastconv import conv, convolution_matrix, im2col, toeplitz, toeplitz_matrix
from fastconv.compat import cs231n
from fastconv.convolution.toeplitz import csr as _csr


class Late(ValueError):
    """An exception that a signal handler may raise."""


class LateType(TypeError):
    """Likewise."""


def test_weights_that_change_after_they_were_counted(rng, monkeypatch):
    """The same weights are counted and written, even if a handler or another thread changes the caller's array."""
    w = rng.standard_normal((4, 3, 3, 3)) * (rng.random((4, 3, 3, 3)) < 0.3)
    before = w.copy()
    expected = toeplitz_matrix(w, (3, 8, 8), pad=1).toarray()
    x = rng.standard_normal((2, 3, 8, 8))
    out = conv(x, w, pad=1, algorithm="toeplitz")
    shared = []
    build = _csr.build

    def changing(weights, *args, **options):
        shared.append(np.shares_memory(weights, w))
        w[...] = 1
        return build(weights, *args, **options)

    monkeypatch.setattr(_csr, "build", changing)
    assert np.array_equal(toeplitz_matrix(w, (3, 8, 8), pad=1).toarray(), expected)
    w[...] = before
    assert np.array_equal(conv(x, w, pad=1, algorithm="toeplitz"), out)
    assert shared and not any(shared)


def test_exceptions_that_are_not_about_sizes_keep_their_class(monkeypatch):
    def late(*_, **__):
        raise Late("time is over")

    monkeypatch.setattr(toeplitz._csr, "support", late)
    with pytest.raises(Late, match=r"^time is over$"):
        toeplitz_matrix(np.ones((1, 1, 2, 2)), (1, 4, 4))
    with pytest.raises(Late, match=r"^time is over$"):
        convolution_matrix(np.ones(3), 5)
    monkeypatch.setattr("fastconv.checks.arrays.empty_result", late)
    with pytest.raises(Late, match=r"^time is over$"):
        im2col(np.ones((1, 1, 4)), 2)


@pytest.mark.parametrize("kind", [Late, LateType])
def test_exceptions_of_conversions_keep_their_class(kind, monkeypatch):
    class Array:
        def __array__(self, *_, **__):
            raise kind("time is over")

    with pytest.raises(kind, match=r"^time is over$"):
        conv(Array(), np.ones((1, 1, 2)))

    def late(*_, **__):
        raise kind("conv_forward_strides")

    monkeypatch.setattr("fastconv.compat.cs231n.conv.conv_forward_strides", late)
    with pytest.raises(kind, match=r"^conv_forward_strides$"):
        cs231n.conv_forward_fast(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), {"stride": 1, "pad": 0})
