"""The argument `out`: if a call raises an error, `out` is unchanged."""

import numpy as np
import pytest
from test_bad_input import OUT, B, W, X

from fastconv import col2im, conv, im2col

READ_ONLY = np.zeros(OUT.shape)
READ_ONLY.flags.writeable = False


def overlapping():
    memory = np.ones(X.size + OUT.size)
    x = memory[: X.size].reshape(X.shape)
    return x, memory[X.size - 1 : X.size - 1 + OUT.size].reshape(OUT.shape)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((2, 8, 4, 5)), ValueError, r"out has shape \(2, 8, 4, 5\), but the result has shape \(2, 8, 4, 4\)"),
        (np.zeros(OUT.shape, np.float32), ValueError, "out has dtype <f4"),
        (np.zeros(OUT.shape, ">f8"), ValueError, "out has dtype >f8"),
        (np.zeros(OUT.shape, order="F"), ValueError, "out must be C-contiguous"),
        (np.zeros((4, 8, 4, 4))[::2], ValueError, "out must be C-contiguous"),
        (READ_ONLY, ValueError, "out is read-only"),
        (OUT.tolist(), TypeError, "out must be a NumPy array, got list"),
    ],
)
def test_out_refused_untouched(out, error, message):
    before = np.array(out, copy=True)
    with pytest.raises(error, match=message):
        conv(X, W, out=out)
    assert np.array_equal(before, out)


def test_out_may_not_overlap_an_input():
    x, out = overlapping()
    with pytest.raises(ValueError, match="out overlaps x in memory"):
        conv(x, W, out=out)
    assert np.all(x == 1)
    w = np.zeros((4, 4, 1, 1))
    with pytest.raises(ValueError, match="out overlaps w"):
        conv(np.ones((1, 4, 2, 2)), w, out=w.reshape(1, 4, 2, 2))
    b = np.zeros(4)
    with pytest.raises(ValueError, match="out overlaps b"):
        conv(np.ones((1, 4, 1, 1)), w, b, out=b.reshape(1, 4, 1, 1))
    cols = np.zeros((1, 9, 1))
    with pytest.raises(ValueError, match="out overlaps cols"):
        col2im(cols, (1, 1, 3, 3), 3, out=cols.reshape(1, 1, 3, 3))
    x = np.ones((1, 1, 2))
    with pytest.raises(ValueError, match="out overlaps x"):
        im2col(x, 1, out=x)


def test_out_between_the_rows_of_an_input_is_no_overlap():
    memory = np.ones((3, 1, 2, 2))
    out = memory[1:2]
    assert conv(memory[::2][:1], np.ones((1, 1, 1, 1)), out=out) is out
    x = memory[::2]
    assert np.may_share_memory(x, out) and not np.shares_memory(x, out)
    assert conv(x.reshape(1, 2, 2, 2) if x.flags.c_contiguous else x[:, 0][None], np.ones((1, 2, 1, 1)), out=out) is out
    assert np.all(out == 2)


def test_nothing_is_written_when_a_later_check_fails():
    out = np.full(OUT.shape, 7.0)
    for bad in ({"algorithm": "magic"}, {"threads": 0}, {"stride": 2}, {"unknown": 1}):
        with pytest.raises((ValueError, TypeError)):
            conv(X, W, out=out, **bad)
    with pytest.raises(TypeError):
        conv(X, W, B * 1j, out=out)
    assert np.all(out == 7)
    cols = np.full((2, 36, 16), 7.0)
    with pytest.raises(ValueError):
        im2col(X, 3, out=cols, threads=0)
    assert np.all(cols == 7)
