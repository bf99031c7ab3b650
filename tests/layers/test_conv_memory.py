"""Memory of convolutions: what a call allocates and keeps, and which memory results share."""

import numpy as np
import pytest
from cases import OPS, registry

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv.convolution.plan import Case
from fastconv.runtime import workspace as _workspace


def test_results_alias_nothing():
    x, w, b = np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), np.zeros(1)
    out, cache = conv_forward(x, w, b)
    gradients = conv_backward(out, cache)
    for result in (out, *gradients):
        assert not any(
            np.shares_memory(result, a) for a in (x, w, b, *(r for r in (out, *gradients) if r is not result))
        )


def test_memory_of_fft_is_bounded(rng):
    """For the second layer, the spectra of all channels and filters would take 70 MB, those of its images 100 MB."""
    import tracemalloc

    fft = registry()["fft"]
    for x, w in (((2, 4, 300, 300), (4, 4, 11, 11)), ((6, 256, 20, 20), (64, 256, 5, 5)), ((1, 2, 90000), (2, 2, 300))):
        x, w = rng.standard_normal(x, np.float32), rng.standard_normal(w, np.float32)
        geometry = fastconv.conv_geometry(x.shape, w.shape, pad=2)
        out, dx, dw = np.empty(geometry.out_shape, np.float32), np.empty_like(x), np.empty_like(w)
        dout = rng.standard_normal(out.shape, np.float32)
        tracemalloc.start()
        calls = {
            "forward": (x, w, None, out),
            "backward_data": (dout, w, None, dx),
            "backward_weights": (x, dout, None, dw),
        }
        for op, arrays in calls.items():
            fft.plan(Case.of(op, geometry, x.dtype)).run(*arrays)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32 << 20
        for op in OPS:
            assert fft.plan(Case.of(op, geometry, x.dtype, 1)).workspace_bytes <= 32 << 20


def test_a_shape_assigned_between_forward_and_backward_does_not_matter(rng):
    x, w = rng.standard_normal((4, 3, 6, 6)), rng.standard_normal((2, 3, 3, 3))
    out, cache = conv_forward(x, w, None)
    expected = conv_backward(out, cache)
    x.shape = (4, 108)
    for actual, wanted in zip(conv_backward(out, cache)[:2], expected[:2], strict=True):
        assert np.array_equal(actual, wanted)


def test_workspace_is_kept_and_never_shared():

    with _workspace.workspace("a", (3, 5), np.dtype(np.float64)) as outer:
        outer[...] = 7
        with _workspace.workspace("b", (3, 5), np.dtype(np.float64)) as inner:
            assert not np.shares_memory(outer, inner)
            conv(np.ones((2, 3, 9, 9)), np.ones((4, 3, 3, 3)), pad=1)
        assert np.all(outer == 7)
    with _workspace.workspace("c", (15,), np.dtype(np.float32)) as first:
        at = first.ctypes.data
    with _workspace.workspace("d", (4,), np.dtype(np.float64)) as second:
        assert second.ctypes.data == at and at % 64 == 0
    with (
        pytest.raises(ValueError, match="more than can be addressed"),
        _workspace.workspace("e", (2**62,), first.dtype),
    ):
        pass


def test_memory_of_im2col_is_bounded():
    """One image, or a few small ones, are lowered at a time, so the peak does not grow with the batch."""
    import tracemalloc

    w = np.ones((8, 8, 3, 3), np.float32)
    peaks = []
    for n in (2, 8):
        x = np.ones((n, 8, 64, 64), np.float32)
        out = np.empty_like(x)
        conv(x, w, pad=1, algorithm="im2col", out=out)
        tracemalloc.start()
        conv(x, w, pad=1, algorithm="im2col", out=out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_image = 8 * 9 * 64 * 64 * 4
    assert peaks[0] < one_image + 100_000 and abs(peaks[1] - peaks[0]) < 50_000
    small, w = np.ones((400, 64, 7, 7), np.float32), np.ones((64, 64, 3, 3), np.float32)
    out = np.empty_like(small)
    tracemalloc.start()
    conv(small, w, pad=1, algorithm="im2col", out=out)
    assert tracemalloc.get_traced_memory()[1] < 9 << 20
    tracemalloc.stop()


def test_a_workspace_is_what_was_asked_for():
    """A workspace has the requested shape and dtype, and never the memory of one that is in use."""
    for dtype in (np.float32, np.float64, np.float64, np.float32):
        with _workspace.workspace("space", (3, 5), np.dtype(dtype)) as space:
            assert space.shape == (3, 5) and space.dtype == dtype and space.ctypes.data % 64 == 0
            with _workspace.workspace("space", (3, 5), np.dtype(dtype)) as other:
                assert not np.shares_memory(space, other)
