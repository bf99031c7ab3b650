"""When 'auto' looks for kernels that are outer products, and what it then takes."""

import re

import numpy as np
import pytest
from test_separable import SEPARABLE, gaussian, outer, taken

import fastconv
from fastconv import conv, conv_backward, conv_forward, conv_transpose
from fastconv._ext.separable import separable as kernels
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.plan import Case
from fastconv.runtime import isa as _isa


@pytest.mark.parametrize(("dtype", "threads"), [(np.float32, 1), (np.float64, 2)])
def test_auto_looks_at_the_kernel(dtype, threads, isa, rng, monkeypatch):
    x = rng.standard_normal((1, 1, 512, 512)).astype(dtype)
    blur = outer(gaussian(31), gaussian(31))[None, None].astype(dtype)
    for options in ({"pad": 15}, {"pad": 15, "pad_mode": "reflect"}, {"pad": 15, "flip": True}):
        for w, found in ((blur, True), (rng.standard_normal(blur.shape).astype(dtype), False)):
            cached = []
            names = taken(
                monkeypatch, lambda w=w, o=options, to=cached: to.append(conv_forward(x, w, None, threads=threads, **o))
            )
            assert (names == ["separable"]) == found and ("separable" in names) == found
            names = taken(monkeypatch, lambda to=cached: conv_backward(*to[0], need_db=False))
            assert names.count("separable") == found
            # The cheapest algorithm that sums products or uses transforms computes dw, because the full gradient is no
            # outer product.
            assert len(names) >= 2 and names[-1] != "separable"
            assert "separable" not in taken(
                monkeypatch, lambda w=w, o=options: conv(x, w, algorithm="exact", threads=threads, **o)
            )


def test_auto_looks_at_every_kernel(rng, monkeypatch):
    x = rng.standard_normal((1, 3, 256, 256)).astype(np.float32)
    w = np.stack([outer(gaussian(15), gaussian(15))] * 3)[:, None].astype(np.float32)
    assert taken(monkeypatch, lambda: conv(x, w, pad=7, groups=3)) == ["separable"]
    assert taken(monkeypatch, lambda: conv_transpose(x, w, pad=7, groups=3)) == ["separable"]
    w[2, 0, 3, 4] *= np.float32(1.001)
    assert "separable" not in taken(monkeypatch, lambda: conv(x, w, pad=7, groups=3))
    assert "separable" not in taken(monkeypatch, lambda: conv_transpose(x, w, pad=7, groups=3))


def test_no_look_where_little_is_at_stake(monkeypatch):
    """'auto' does not check small layers, because the check would take longer than the convolution."""
    looks = []
    monkeypatch.setattr(kernels, "factors", lambda *arguments, **named: looks.append(arguments) or (0,))
    for x, w in [((1, 1, 28, 28), (1, 1, 3, 3)), ((4, 16, 14, 14), (16, 16, 3, 3)), ((1, 1, 5000), (1, 1, 63))]:
        conv(np.ones(x, np.float32), np.ones(w, np.float32))
    assert not looks
    conv(np.ones((1, 1, 512, 512), np.float32), np.ones((1, 1, 15, 15), np.float32))
    assert len(looks) == 1


def test_explain():
    shapes = (1, 1, 512, 512), (1, 1, 31, 31)
    text = fastconv.explain(*shapes, pad=15)
    assert re.search("separable +- +-  it needs kernels that are outer products, and is a candidate if rank_one", text)
    assert "-> separable" not in text
    text = fastconv.explain(*shapes, pad=15, rank_one=True)
    assert "\n-> separable    " in text and "kernels of rank one" in text
    assert re.search("-> separable, chosen by cost.*; images with inf or NaN are computed again by [a-z0-9]+", text)
    assert "-> separable" not in fastconv.explain(*shapes, pad=15, rank_one=True, algorithm="exact")
    assert "-> separable" not in fastconv.explain(*shapes, pad=15, rank_one=True, op="backward_weights")
    assert "-> separable, as requested" in fastconv.explain(*shapes, pad=15, algorithm="separable")
    assert "the kernel must have 2 or 3 axes, and it has only one" in fastconv.explain(
        (1, 1, 99), (1, 1, 9), rank_one=True
    )
    with pytest.raises(TypeError, match="rank_one must be True or False, got 1"):
        fastconv.explain(*shapes, rank_one=1)


def test_products_that_are_counted():
    """A 31x31 kernel costs 62 products a pixel, while the sum of products has 961."""
    for x, w, options in [
        ((2, 3, 200, 300), (3, 1, 31, 31), {"pad": 15, "groups": 3}),
        ((2, 3, 200, 300), (6, 1, 31, 31), {"pad": 15, "groups": 3, "stride": 2}),
    ]:
        geometry = fastconv.conv_geometry(x, w, **options)
        work = SEPARABLE.plan(Case.of("forward", geometry, np.dtype(np.float32), 1)).work
        outs = np.prod(geometry.out_shape)
        lanes = kernels.lanes(dtype=0, isa=_isa.current)
        assert work["across"] * lanes == 31 * outs
        assert work["down"] * lanes == 31 * outs * (300 / geometry.out_shape[3])
        assert multiply_adds(geometry) == 961 * outs
