"""Memory of large results is given to the next, and never to two arrays at once."""

import gc
import mmap
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import fastconv
from fastconv import _arrays, _memory

pytestmark = pytest.mark.skipif(not _memory._KEEPS, reason="memory is kept on Linux only")

F4 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_memory, "_LEAST_BYTES", 1)
    monkeypatch.setattr(_memory, "_LARGE_BYTES", 1)
    monkeypatch.setattr(_memory, "_kept_bytes", 16 << 20)
    monkeypatch.setattr(_memory, "_free", [])
    monkeypatch.setattr(_memory, "_free_small", [])


def test_the_next_result_is_where_the_last_was():
    a = _memory.empty((3, 5), F4)
    at = a.ctypes.data
    assert (a.shape, a.dtype, type(a), a.flags.c_contiguous, a.flags.writeable) == ((3, 5), F4, np.ndarray, True, True)
    del a
    assert _memory.empty((15,), F4).ctypes.data == at


@pytest.mark.parametrize("view", [lambda a: a[1:, ::2].T, lambda a: a.reshape(-1), memoryview, np.asfortranarray])
def test_a_view_holds_it(view):
    a = _memory.empty((3, 5), F4)
    a[...] = 7
    at, held = a.ctypes.data, view(a)
    del a
    b = _memory.empty((3, 5), F4)
    b[...] = 1
    assert (np.asarray(held) == 7).all()
    copied = not isinstance(held, memoryview) and held.base is None
    assert (b.ctypes.data == at) == copied


def test_what_is_kept_is_bounded():
    arrays = [_memory.empty((1 << 20,), F4) for _ in range(10)]
    del arrays
    assert sum(map(len, _memory._free)) == 16 << 20
    huge = _memory.empty((5 << 20,), F4)
    del huge
    assert max(map(len, _memory._free)) == 4 << 20
    _memory.release()
    assert not _memory._free


def test_of_small_results_less_is_kept(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(_memory, "_KEPT_SMALL", 3 << 16)
    large, *arrays = [_memory.empty((n,), F4) for n in (1 << 18, 5, 1 << 14, (1 << 14) + 1, 7)]
    places = [a.ctypes.data for a in arrays]
    del large
    while arrays:
        del arrays[0]
    # Of one, one, two and one page the first two are gone.
    assert [len(memory) >> 16 for memory in _memory._free_small] == [2, 1]
    assert len(_memory._free) == 1
    again = _memory.empty((9,), F4)  # the last that was freed
    assert again.ctypes.data == places[3]
    assert _memory.empty((30_000,), F4).ctypes.data == places[2]
    _memory.release()
    assert not _memory._free_small and not _memory._free


def test_small_results_count_with_large_ones(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE_BYTES", 8 << 20)
    results = [_memory.empty((mib << 18,), F4) for mib in (8, 8, 4)]
    while results:
        del results[0]
    kept = _memory._free + _memory._free_small
    assert sorted(len(memory) >> 20 for memory in kept) == [4, 8]


def test_small_results_leave_room_for_large_ones(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE_BYTES", 8 << 20)

    def kept_after(*mib):
        results = [_memory.empty((n << 18,), F4) for n in mib]
        while results:
            del results[0]
        return [[len(memory) >> 20 for memory in kept] for kept in (_memory._free_small, _memory._free)]

    # Alone they may have all of 16 MiB; of large ones they leave a quarter, the last of them.
    assert kept_after(5, 6, 5) == [[5, 6, 5], []]
    assert kept_after(10) == [[5], [10]]
    _memory.release()
    assert kept_after(2, 2, 2, 12) == [[2, 2], [12]]
    # For one that does not fit nothing goes.
    assert kept_after(14) == [[2, 2], [12]]
    _memory.release()
    assert kept_after(5, 6, 4, 14) == [[5, 6, 4], []]


@pytest.mark.parametrize("less", [0, 1, 4, 1 << 12, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_results_about_as_large_as_large_ones(monkeypatch, less):
    monkeypatch.setattr(_memory, "_LARGE_BYTES", 2 << 20)
    dtype, places = np.dtype(np.uint8), set()
    for _ in range(5):
        result = _memory.empty(((2 << 20) - less,), dtype)
        places.add(result.ctypes.data)
        del result
    assert len(places) == 1
    assert len(_memory._free + _memory._free_small) == 1


def test_what_could_be_taken_back_to_life_is_not_kept():
    a = _memory.empty((3, 5), F4)
    assert not hasattr(a.base, "__dict__")
    seen = weakref.ref(a.base)
    del a
    assert seen() is None
    assert not _memory._free


def test_what_is_kept_is_given_back_before_memory_runs_out(monkeypatch):
    make = _memory._map

    def limited(nbytes):
        if _memory._size(_memory._free) + nbytes > 8 << 20:
            raise OSError(12, "Cannot allocate memory")
        return make(nbytes)

    kept = _memory.empty((1 << 20,), F4)
    del kept
    assert _memory._free
    monkeypatch.setattr(_memory, "_map", limited)
    result = _memory.empty((2 << 20,), F4)
    assert type(result.base) is _memory._Lease
    assert not _memory._free


def test_what_is_kept_is_given_back_before_a_workspace_finds_no_memory(monkeypatch):
    kept, make = _memory.empty((5,), F4), np.empty
    del kept

    def limited(*args):
        if _memory._free:
            raise MemoryError
        return make(*args)

    monkeypatch.setattr(np, "empty", limited)
    with _arrays.workspace("it", (3 << 20,), F4) as space:
        assert space.shape == (3 << 20,)
    monkeypatch.setattr(_memory, "release", int)
    _memory._free.append(mmap.mmap(-1, 1 << 16))
    with pytest.raises(MemoryError):
        _memory.scratch(1)


def test_memory_much_larger_than_a_result_is_not_taken():
    a = _memory.empty((4 << 20,), F4)
    del a
    small = _memory.empty((5,), F4)
    assert len(_memory._free) == 1
    del small


def test_too_large_a_result_is_refused_as_ever():
    with pytest.raises(MemoryError):
        _memory.empty((1 << 60,), np.dtype(np.uint8))


def test_results_stay_what_they_were(rng):
    x, w = rng.standard_normal((2, 3, 9, 9)), rng.standard_normal((4, 3, 3, 3))
    right, cache = fastconv.conv_forward(x, w, None, pad=1)
    right, gradient = right.copy(), fastconv.conv_backward(right, cache)[0].copy()
    wrong = []

    def loop():
        kept = []
        for i in range(60):
            out, cache = fastconv.conv_forward(x, w, None, pad=1)
            dx, _, _ = fastconv.conv_backward(right, cache)
            kept = [*kept[-(i % 4) :], out, dx]
            wrong.extend(a for a in kept if not (np.array_equal(a, right) or np.array_equal(a, gradient)))

    threads = [threading.Thread(target=loop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not wrong
    assert _memory._free


def test_environment_says_how_much():
    code = "from fastconv import _memory as m; print(m._kept_bytes)"

    def kept(text):
        environment = {**os.environ, "FASTCONV_KEEP_MIB": text}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout), done.stderr

    assert kept("0") == (0, "")
    assert kept("3") == (3 << 20, "")
    nbytes, said = kept("lots")
    assert nbytes == 512 << 20
    assert "FASTCONV_KEEP_MIB is 'lots'" in said
    nbytes, said = kept("9" * 5000)
    assert nbytes == 512 << 20
    assert "FASTCONV_KEEP_MIB is '999" in said


def test_none_is_kept_where_none_shall_be(monkeypatch):
    monkeypatch.setattr(_memory, "_kept_bytes", 0)
    assert _memory.empty((3,), F4).base is None
