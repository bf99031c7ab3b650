"""The workspace of `separable` is bounded, and its kernels write nothing outside of it."""

import math

import numpy as np
import pytest
from test_separable import SEPARABLE

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv.convolution.plan import Case


def test_workspace_is_bounded():
    for x, w, options in [
        ((1, 1, 8192, 8192), (1, 1, 255, 255), {}),
        ((1, 1, 50, 10**6), (1, 1, 3, 4001), {}),
        ((1, 1, 134, 284, 284), (1, 1, 25, 25, 25), {}),
        ((1, 1, 3, 2000, 2000), (1, 1, 3, 99, 99), {"pad": 1, "stride": (1, 3, 2)}),
    ]:
        geometry = fastconv.conv_geometry(x, w, **options)
        for op in ("forward", "backward_data"):
            assert SEPARABLE.unsupported(Case.of(op, geometry, np.dtype(np.float64))) is None
            assert SEPARABLE.plan(Case.of(op, geometry, np.dtype(np.float64), 2)).workspace_bytes < 8 << 20
    with pytest.raises(ValueError, match="cannot do this forward: the extent of the kernel makes a block take"):
        conv(np.ones((1, 1, 1, 9)), np.ones((1, 1, 1, 3)), algorithm="separable", dilation=(1, 10**7), pad=(0, 10**7))


class Guarded:
    """Replaces `_workspace.workspace` by one that has a guard of known numbers around the memory."""

    MARGIN = 1 << 14

    def __init__(self, what, shape, dtype):
        self.shape, self.all = shape, np.full(math.prod(shape) + 2 * self.MARGIN, 7, dtype)

    def __enter__(self):
        return self.all[self.MARGIN : -self.MARGIN].reshape(self.shape)

    def __exit__(self, *raised):
        assert np.all(self.all[: self.MARGIN] == 7) and np.all(self.all[-self.MARGIN :] == 7)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("x", "k", "pad"),
    [
        ((1, 1, 8, 100), (3, 3), [(1, 1), (1, 20000)]),
        ((1, 1, 8, 100), (3, 3), [(1, 1), (20000, 1)]),
        ((1, 1, 9, 10, 80), (3, 3, 3), [(1, 1), (1, 1), (1, 1500)]),
        ((1, 1, 9, 10, 80), (3, 3, 3), [(1, 1), (1, 1), (1500, 1)]),
    ],
    ids=["right", "left", "right of a volume", "left of a volume"],
)
def test_blocks_beyond_the_image_stay_in_their_workspace(x, k, pad, threads, isa, rng, monkeypatch):
    monkeypatch.setattr(fastconv.runtime.workspace, "workspace", Guarded)
    image, w = rng.standard_normal(x), np.ones((1, 1, *k))
    out, cache = conv_forward(image, w, None, pad=pad, algorithm="separable", threads=threads)
    wanted, exact = conv_forward(image, w, None, pad=pad, algorithm="reference")
    np.testing.assert_allclose(out, wanted, atol=1e-12)
    dx, wanted = (conv_backward(out, kept, need_dw=False)[0] for kept in (cache, exact))
    np.testing.assert_allclose(dx, wanted, atol=1e-10)
