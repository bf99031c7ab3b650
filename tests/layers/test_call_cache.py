"""A stored call is used only if the same arguments are given again."""

import copy
import itertools
import pickle
import threading
from fractions import Fraction

import numpy as np
import pytest

import fastconv
from fastconv import conv, conv_backward, conv_forward
from fastconv._ext.buffers.call_cache import CallCache
from fastconv.runtime.plan_cache import plans

X, W, B = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32), np.zeros(3, np.float32)


def call_cache(most=8):
    return CallCache(np.ndarray, (np.dtype(np.float32), np.dtype(np.float64)), most)


def test_equal_calls_are_found_whoever_holds_them():
    table = call_cache()
    table.put((X, W, B), {"stride": (1, 2), "pad": ((1, 0), (0, 1)), "flip": True}, "found")
    again = X.copy(), W + 1, B + 1
    assert table.get(again, {"stride": (1, 2), "pad": ((1, 0), (0, 1)), "flip": True}) == "found"
    table.clear()
    assert table.get(again, {"stride": (1, 2), "pad": ((1, 0), (0, 1)), "flip": True}) is None


def test_calls_that_mean_different_things_have_different_keys():
    arrays = [
        (X, W, B),
        (X, W, None),
        (X, W[:, :, :2].copy(), B),
        (X.reshape(1, 2, 25), W, B),
        (X.reshape(2, 1, 5, 5), W, B),
        tuple(a.astype(np.float64) for a in (X, W, B)),
    ]
    options = [
        {},
        {"stride": 1},
        {"pad": 1},
        {"flip": True},
        {"flip": False},
        {"stride": True},
        {"flip": 0},
        {"pad": "same"},
        {"stride": (1, 2)},
        {"pad": ((1, 2),)},
        {"stride": None},
    ]
    table = call_cache(len(arrays) * len(options))
    calls = list(itertools.product(arrays, options))
    for i, (a, o) in enumerate(calls):
        assert table.get(a, o) is None
        table.put(a, o, i)
    assert [table.get(a, o) for a, o in calls] == list(range(len(calls)))


class Array(np.ndarray):
    """A subclass of ndarray."""


class Text(str):
    """A subclass of str."""

    __slots__ = ()


@pytest.mark.parametrize(
    "array",
    [
        X.tolist(),
        X.view(Array),
        X.astype(np.float16),
        X.astype(X.dtype.newbyteorder()),
        np.asfortranarray(np.ones((2, 2, 5, 5), np.float32)),
        np.ones((2, 2, 5, 10), np.float32)[..., ::2],
        np.frombuffer(bytes(201), np.uint8)[1:].view(np.float32).reshape(1, 2, 5, 5),
        np.ones((1,) * 7, np.float32),
    ],
    ids=["list", "subclass", "half", "swapped", "fortran", "strided", "unaligned", "many axes"],
)
def test_what_kernels_cannot_read_is_not_kept(array):
    table = call_cache()
    table.put((array, W, B), {}, "found")
    assert table.get((array, W, B), {}) is None


@pytest.mark.parametrize(
    "value", [1.0, np.int64(1), [1, 2], (1, 2.0), (1, True), ((1, 2), [1, 2]), ((1, True),), Text("same"), np.ones(2)]
)
def test_unusual_options_are_not_kept(value):
    table = call_cache()
    table.put((X, W, B), {"stride": value}, "found")
    assert table.get((X, W, B), {"stride": value}) is None


def test_it_holds_so_many():
    table = call_cache(3)
    for i in range(10):
        table.put((X, W, B), {"pad": i}, i)
        assert table.get((X, W, B), {"pad": i}) == i
    assert sum(table.get((X, W, B), {"pad": i}) is not None for i in range(10)) <= 3


def test_settings_that_are_not_arguments_count_all_the_same(monkeypatch):
    """Every call checks threads and `out`."""
    seen = []
    run = fastconv.runtime.threads.work_queue
    monkeypatch.setattr("fastconv.runtime.threads.work_queue", lambda *a: seen.append(a[-1]) or run(*a))
    for threads in (1, 2, 3, 1):
        with fastconv.threads(threads):
            conv(X, W, B)
    assert seen == [1, 2, 3, 1]
    out = np.empty((1, 3, 3, 3), np.float32)
    assert conv(X, W, B, out=out) is out
    with pytest.raises(ValueError, match="out overlaps x"):
        conv(X, np.ones((2, 2, 1, 1), np.float32), out=X)
    with pytest.raises(ValueError, match="out has shape"):
        conv(X, W, B, out=np.empty((1, 3, 3, 4), np.float32))


def test_callers_at_once_get_what_is_theirs(rng):
    cases = [(rng.standard_normal((1, 2, 5 + i, 6)), rng.standard_normal((3, 2, 3, 1 + i % 3))) for i in range(8)]
    expected = [conv(x, w, pad=1, algorithm="reference") for x, w in cases]
    wrong = []

    def call(offset):
        for i in range(200):
            x, w = cases[(i + offset) % 8]
            out, cache = conv_forward(x, w, None, {"pad": 1})
            conv_backward(out, cache)
            if not np.allclose(out, expected[(i + offset) % 8]):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("copied", [lambda cache: pickle.loads(pickle.dumps(cache)), copy.deepcopy])
@pytest.mark.parametrize("options", [{}, {"stride": Fraction(1, 2)}, {"upsample": 2, "stride": (2, 4)}])
def test_caches_can_be_copied_and_sent(copied, options, rng):
    """Plans stored for a geometry are not copied or pickled with it."""
    x, w = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3))
    out, cache = conv_forward(x, w, None, {**options, "pad": 1})
    expected = conv_backward(out, cache)[:2]
    for actual, wanted in zip(conv_backward(out, copied(cache))[:2], expected, strict=True):
        assert np.array_equal(actual, wanted)


def test_equal_options_of_other_types_are_told_apart():
    """1, True and 1.0 are the same key of a dict, but an earlier legal value does not make the others legal."""
    x, w = np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3))
    for option in ("stride", "upsample", "pad", "dilation", "groups", "threads"):
        conv(x, w, **{option: 1})
        conv_forward(x, w, None, {option: 1})
        for value in (True, 1.0, np.bool_(True)):
            with pytest.raises(TypeError, match=option):
                conv(x, w, **{option: value})
            with pytest.raises(TypeError, match=option):
                conv_forward(x, w, None, {option: value})
    conv(x, w, flip=True)
    with pytest.raises(TypeError, match="flip"):
        conv(x, w, flip=1)


@pytest.mark.parametrize("longest", [0, 1 << 16])
def test_long_plans_are_made_anew_and_not_kept(longest, monkeypatch):
    implicit = fastconv.convolution.implicit_gemm.calls
    made = []
    plan = implicit._product_call
    monkeypatch.setattr("fastconv.runtime.plan_cache._MOST_BYTES", longest)
    monkeypatch.setattr(implicit, "_product_call", lambda *a: made.append(a) or plan(*a))
    x, w = np.ones((1, 2, 11, 13)), np.ones((3, 2, 3, 4))
    plans.clear()
    for _ in range(3):
        conv(x, w, pad=(2, 1), algorithm="implicit")
    assert len(made) == 1 if longest else len(made) >= 3


def test_pooling_finds_calls_of_the_same_function():
    images = np.arange(32.0, dtype=np.float32).reshape(1, 2, 4, 4)
    for _ in range(2):
        for x in (images, images.astype(np.float64), images.reshape(2, 1, 4, 4), images[:, :, ::-1], images.tolist()):
            out, cache = fastconv.max_pool_forward(x, kernel_size=2, stride=1)
            x = np.asarray(x)
            windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
            np.testing.assert_array_equal(out, windows.max((-1, -2)))
            assert out.dtype == x.dtype
            assert cache.geometry.x_shape == x.shape
            mean, _ = fastconv.avg_pool_forward(x, kernel_size=2, stride=1)
            np.testing.assert_array_equal(mean, windows.mean((-1, -2)))
        assert fastconv.max_pool_forward(images, kernel_size=2, threads=1)[1].threads == 1
        assert fastconv.max_pool_forward(images, kernel_size=2, threads=2)[1].threads == 2
        assert fastconv.max_pool_forward(images, kernel_size=1)[0].shape == images.shape
        for wrong in (True, 1.0):
            with pytest.raises(TypeError, match="kernel_size"):
                fastconv.max_pool_forward(images, kernel_size=wrong)
        with pytest.raises(TypeError, match="count_include_pad"):
            fastconv.max_pool_forward(images, kernel_size=2, count_include_pad=True)
        assert fastconv.avg_pool_forward(images, kernel_size=2, count_include_pad=True)[0].shape == (1, 2, 2, 2)
