"""Rounding errors of long and medium sums in float32."""

import numpy as np
import pytest

from fastconv import conv, conv_backward, conv_forward


def steps_of(x, w, algorithm, stride=1, dout=None):
    pad = [(k // 2, k // 2) for k in w.shape[2:]]
    out, cache = conv_forward(x, w, None, pad=pad, stride=stride, algorithm=algorithm)
    return [out, *conv_backward(out if dout is None else dout, cache)[:2]]


@pytest.mark.parametrize("algorithm", ["implicit", "im2col"])
@pytest.mark.parametrize("draw", ["standard_normal", "random"])
def test_long_sums_keep_their_precision(algorithm, draw, rng):
    """Products are summed in blocks, so that 4,608 of them err by little more than one rounding of the result."""
    x, w = getattr(rng, draw)((1, 512, 9, 9)), getattr(rng, draw)((16, 512, 3, 3))
    exact = steps_of(x, w, "reference")
    found = steps_of(x.astype(np.float32), w.astype(np.float32), algorithm, dout=exact[0].astype(np.float32))
    for actual, wanted in zip(found, exact, strict=True):
        assert np.abs(actual - wanted).max() < 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("channels", [64, 80, 100])
def test_sums_of_middle_length_err_less_than_one_sum(channels, isa, rng):
    """Sums of 61 to 100 products are taken in two halves, which reduces their error; shorter sums are not divided."""
    x, w = rng.standard_normal((1, channels, 50, 50), np.float32), rng.standard_normal((32, channels, 1, 1), np.float32)
    exact = conv(x.astype(np.float64), w.astype(np.float64), algorithm="reference")
    one_sum = np.zeros(exact.shape, np.float32)
    for c in range(channels):
        one_sum = (one_sum + w[:, c].astype(np.float64)[None] * x[:, c : c + 1]).astype(np.float32)

    def error(result):
        return np.sqrt(np.mean((result - exact) ** 2))

    assert error(conv(x, w, algorithm="implicit")) < 0.9 * error(one_sum)
