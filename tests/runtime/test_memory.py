"""The memory of a large result goes to a later result, and never to two arrays at once."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import scipy.sparse

import fastconv
from fastconv._ext.buffers import buffers
from fastconv.checks import arrays as _arrays
from fastconv.runtime import memory as _memory, workspace as _workspace

pytestmark = pytest.mark.skipif(not buffers.MAPS, reason="memory is kept on Linux only")

F4 = np.dtype(np.float32)
MIB = 1 << 20


@pytest.fixture
def use(monkeypatch):
    """Results of all sizes come from a pool that the test makes."""

    def use(**settings):
        pool = buffers.Pool(16 * MIB, **{"large": 1, **settings})
        monkeypatch.setattr(_memory, "_pool", pool)
        return pool

    monkeypatch.setattr(_memory, "_LEAST_BYTES", 1)
    return use


@pytest.fixture
def pool(use):
    """A pool that treats all results as large."""
    return use()


def place(array):
    return array.ctypes.data


def kept(pool):
    """The sizes of free mappings in MiB, the oldest first."""
    return [nbytes / MIB for nbytes in pool.free]


def made_and_gone(*mib):
    """Make results of these sizes in MiB at the same time, and free them in this order."""
    results = [_memory.empty((n << 18,), F4) for n in mib]
    while results:
        del results[0]


def test_the_next_result_is_where_the_last_was(pool):
    a = _memory.empty((3, 5), F4)
    at = place(a)
    assert (a.shape, a.dtype, type(a), a.flags.c_contiguous, a.flags.writeable) == ((3, 5), F4, np.ndarray, True, True)
    del a
    assert place(_memory.empty((15,), F4)) == at


@pytest.mark.parametrize("view", [lambda a: a[1:, ::2].T, lambda a: a.reshape(-1), memoryview, np.asfortranarray])
def test_a_view_holds_it(pool, view):
    a = _memory.empty((3, 5), F4)
    a[...] = 7
    at, held = place(a), view(a)
    del a
    b = _memory.empty((3, 5), F4)
    b[...] = 1
    assert (np.asarray(held) == 7).all()
    copied = not isinstance(held, memoryview) and held.base is None
    assert (place(b) == at) == copied


@pytest.mark.parametrize("owner", [lambda a: a.base, lambda a: a.base.base, lambda a: memoryview(a.base.base)])
def test_who_holds_the_owner_holds_the_memory(pool, owner):
    a = _memory.empty((3, 5), F4)
    held, at = owner(a), place(a)
    del a
    assert pool.free == []
    b = _memory.empty((3, 5), F4)
    assert place(b) != at
    del held
    assert place(_memory.empty((3, 5), F4)) == at


def test_nothing_takes_the_memory_away_from_a_result(pool):
    a = _memory.empty((3, 5), F4)
    owner = a.base.base
    assert type(owner) is buffers.PooledBuffer and owner.nbytes == a.nbytes
    assert [name for name in dir(owner) if not name.startswith("_")] == ["nbytes"]
    with pytest.raises(AttributeError):
        owner.nbytes = 1 << 40
    for call in (owner.__init__, type(owner), lambda: weakref.ref(owner), lambda: setattr(owner, "more", 1)):
        with pytest.raises((TypeError, AttributeError)):
            call()
    with pytest.raises(BufferError, match="has no memory"):
        memoryview(type(owner).__new__(type(owner)))
    view = memoryview(owner)
    assert (view.nbytes, view.format, view.shape, view.readonly) == (60, "B", (60,), False)
    for array in (a, a.base):
        with pytest.raises(ValueError, match="own its data"):
            array.resize(1000)
    a.fill(3)
    view.release()
    assert (a == 3).all()


def test_scipy_takes_a_result_as_it_is(pool):
    """SciPy copies an array that has less than half of its base's elements."""
    arrays = [_memory.empty(shape, dtype) for shape, dtype in (((9,), F4), ((9,), np.dtype(np.int32)))]
    indptr = _memory.empty((4,), np.dtype(np.int32))
    arrays[1][:], indptr[:] = np.tile(np.arange(3), 3), (0, 3, 6, 9)
    matrix = scipy.sparse.csr_array((*arrays, indptr), shape=(3, 3))
    matrix.prune()
    assert place(matrix.data) == place(arrays[0])
    assert all(array.base.size == array.size for array in arrays)


def test_what_is_kept_is_bounded(pool):
    arrays = [_memory.empty((MIB,), F4) for _ in range(10)]
    del arrays
    assert sum(kept(pool)) == 16
    huge = _memory.empty((5 * MIB,), F4)
    del huge
    assert max(kept(pool)) == 4
    _memory.release()
    assert pool.free == []


def test_the_mapping_that_was_freed_last_is_taken(use):
    pool = use(large=MIB)
    arrays = [_memory.empty((n,), F4) for n in (5, (1 << 14) + 1, 7)]
    places = [place(a) for a in arrays]
    while arrays:
        del arrays[0]
    assert [nbytes >> 16 for nbytes in pool.free] == [1, 2, 1]
    again = _memory.empty((9,), F4)
    assert place(again) == places[2]
    assert place(_memory.empty((30_000,), F4)) == places[1]
    del again
    _memory.release()
    assert pool.free == []


def test_the_mappings_that_are_free_longest_are_evicted(use):
    pool = use(large=8 * MIB)

    def kept_after(*mib):
        made_and_gone(*mib)
        return kept(pool)

    assert kept_after(8, 8, 4) == [8, 4]
    _memory.release()
    # The limit is 16 MiB, for small and large mappings together.
    assert kept_after(5, 6, 5) == [5, 6, 5]
    assert kept_after(10) == [5, 10]
    # A mapping that was in use counts as new when it is freed.
    assert kept_after(5, 10) == [5, 10]
    assert kept_after(1, 6) == [1, 6]
    # A mapping that does not fit evicts nothing.
    assert kept_after(18) == [1, 6]


@pytest.mark.parametrize("less", [0, 1, 4, 1 << 12, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_results_about_as_large_as_large_ones(use, less):
    pool = use(large=2 * MIB)
    dtype, places = np.dtype(np.uint8), set()
    for _ in range(5):
        result = _memory.empty(((2 << 20) - less,), dtype)
        places.add(result.ctypes.data)
        del result
    assert len(places) == 1
    assert len(pool.free) == 1


def limited(code, how="RLIMIT_AS", room=64):
    """The output of a process that may map only `room` MiB more from the moment at which `code` calls `limit()`."""
    setup = f"""
import resource, re, signal, threading
import numpy as np
import fastconv
from fastconv.checks import arrays as _arrays; from fastconv.runtime import memory as _memory, workspace as _workspace
def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
def limit():
    used = status("VmSize" if {how!r} == "RLIMIT_AS" else "VmData")
    resource.setrlimit(resource.{how}, (used + ({room} << 20), resource.RLIM_INFINITY))
def kept():
    return sum(_memory._pool.free), sum(buffer.nbytes for o in list(_workspace._owners.values())
                                                  for buffer, _ in o.idle.values())
F4 = np.dtype(np.float32)
x, w = np.ones((4, 16, 64, 64), F4), np.ones((16, 16, 3, 3), F4)
def use():
    out, cache = fastconv.conv_forward(x, w, None, pad=1, algorithm="implicit")
    return fastconv.conv_backward(out, cache)[0]
"""
    done = subprocess.run(
        [sys.executable, "-c", setup + code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("how", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_nothing_is_kept_under_an_address_limit(how):
    before = limited("use(); print(*kept())", how)
    assert all(int(nbytes) > 0 for nbytes in before)
    assert limited("limit(); use(); print(*kept())", how) == ["0", "0"]
    # Memory in the pool is freed when the next large result is freed.
    later = """
use()
with _workspace.workspace("it", (1 << 19,), F4): pass
print(*map(bool, kept()))
limit()
a = _memory.empty((1 << 18,), F4)
del a
with _workspace.workspace("it", (1 << 19,), F4): pass
print(*kept())
"""
    assert limited(later, how) == ["True", "True", "0", "0"]


def test_other_libraries_find_memory_under_a_limit():
    """The limit has room for two results. A freed result must leave its room to an array of NumPy."""
    code = """
limit()
for _ in range(4):
    a = _memory.empty((10 << 20,), F4)
    a.fill(1)
    del a
    b = np.ones(10 << 20, F4)
    del b
print(b"".__class__.__name__)
"""
    assert limited(code, room=60) == ["bytes"]


def test_what_is_kept_is_given_back_before_memory_runs_out():
    """A limit is set while the pool holds memory; a new result fits only if the pool frees it."""
    code = """
a = _memory.empty((20 << 20,), F4); at = a.ctypes.data; del a
b = _memory.empty((1 << 18,), F4); del b
print(*kept())
limit()
c = _memory.empty((25 << 20,), F4)
print(type(c.base).__name__, *kept())
"""
    pooled, scratch, kind, *rest = limited(code, room=30)
    assert (int(pooled), scratch) == ((80 << 20) + (1 << 20), "0")
    assert (kind, *rest) == ("ndarray", "0", "0")


def test_what_is_kept_is_given_back_before_a_workspace_finds_no_memory(pool, monkeypatch):
    made_and_gone(1)
    make = np.empty

    def short(*args):
        if kept(pool):
            raise MemoryError
        return make(*args)

    monkeypatch.setattr(np, "empty", short)
    with _workspace.workspace("it", (3 << 20,), F4) as space:
        assert space.shape == (3 << 20,)

    def none(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    with pytest.raises(MemoryError):
        _memory.scratch(1, "it", "nothing helps")


def test_what_is_kept_is_given_back_before_an_array_is_refused(pool, monkeypatch):
    made_and_gone(1)
    assert kept(pool)
    monkeypatch.setattr(_memory, "available", lambda: (1 << 30) - sum(pool.free))
    whole = (1 << 30,), np.dtype(np.uint8), "nothing helps"
    assert _memory.check_array("it", *whole) == 1 << 30
    assert not kept(pool)
    monkeypatch.setattr(_memory, "available", lambda: (1 << 30) - 1)
    with pytest.raises(
        _memory.TooLargeError, match=r"^it of shape .* takes \d+ bytes; \d+ bytes are free. nothing helps"
    ):
        _memory.check_array("it", *whole)


def test_release_memory_gives_all_back():
    """Memory of this thread and of others goes back to the system: mapped and resident memory both shrink."""
    code = """
def work(done, go):
    with _workspace.workspace("it", (1 << 22,), F4) as space:
        space.fill(1)
    del space
    done.set(); go.wait()
done, go = threading.Event(), threading.Event()
other = threading.Thread(target=work, args=(done, go)); other.start(); done.wait()
a = _memory.empty((8 << 20,), F4); a.fill(1); del a
b = _memory.empty((1 << 20,), F4); b.fill(1); del b
with _workspace.workspace("it", (1 << 21,), F4) as space:
    space.fill(1)
del space
print(*kept())
mapped, resident = status("VmSize"), status("VmRSS")
fastconv.release_memory()
print(*kept(), mapped - status("VmSize"), resident - status("VmRSS"))
with _workspace.workspace("it", (1 << 21,), F4):
    fastconv.release_memory()  # a call that runs keeps its own, and keeps it afterwards
print(*kept())
go.set(); other.join()
fastconv.release_memory()
"""
    pooled, scratch, none, nothing, mapped, resident, *last = map(int, limited(code))
    assert (pooled, scratch) == (36 << 20, (16 << 20) + (8 << 20) + 128)
    assert (none, nothing) == (0, 0)
    # Nearly all of 36 MiB of results and 24 MiB of workspaces is freed; Python itself allocates a little meanwhile.
    assert mapped >= 55 << 20 and resident >= 55 << 20
    assert last == [0, (8 << 20) + 64]


def test_workspaces_of_threads_that_ended_are_gone():
    def work():
        with _workspace.workspace("it", (5,), F4):
            pass

    gc.collect()
    before = len(_workspace._owners)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert len(_workspace._owners) <= before


def test_a_workspace_is_not_kept_after_an_exception():
    _workspace.release_workspaces()
    with pytest.raises(KeyboardInterrupt), _workspace.workspace("it", (5,), F4):
        raise KeyboardInterrupt
    assert not _workspace._kept.idle
    with _workspace.workspace("it", (5,), F4):
        pass
    assert _workspace._kept.idle


def test_no_signal_is_lost():
    """An exception from a handler reaches the caller, wherever the signal arrives in a loop that makes results."""
    code = """
import random, sys
class Alarm(Exception): pass
def ring(*_):
    global rung
    rung += 1
    raise Alarm
unraisable = []
sys.unraisablehook = unraisable.append
signal.signal(signal.SIGALRM, ring)
rung = caught = lost = 0
x, w = np.ones((1, 4, 192, 192), F4), np.ones((4, 4, 1, 1), F4)
for i in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 8e-4))
        for _ in range(100_000):
            a = _memory.empty((1 << 18,), F4) if i % 4 else fastconv.conv(x, w, threads=1)
            del a
        lost += 1
    except Alarm:
        caught += 1
print(rung, caught, lost, len(unraisable))
"""
    assert limited(code) == ["400", "400", "0", "0"]


@pytest.mark.parametrize("value", ["[[1.0] * 1000] * 3000", "range(10 ** 6)"])
def test_what_a_signal_handler_raises_is_not_taken_for_a_fault_of_the_input(value):
    code = f"""
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
value = {value}
try:
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    for _ in range(1000):
        _arrays.as_array("x", value)
except Alarm as error:
    print("Alarm", error.__context__)
"""
    assert limited(code) == ["Alarm", "None"]


def test_memory_much_larger_than_a_result_is_not_taken(pool):
    a = _memory.empty((4 << 20,), F4)
    del a
    small = _memory.empty((5,), F4)
    assert len(pool.free) == 1
    del small


def test_too_large_a_result_is_refused_as_ever(pool):
    for size in (1 << 60, (1 << 63) - 1, (1 << 63) - (1 << 20)):
        with pytest.raises(MemoryError):
            _memory.empty((size,), np.dtype(np.uint8))
    with pytest.raises(ValueError, match=r"array is too big|Maximum allowed dimension"):
        _memory.empty((1 << 63,), np.dtype(np.uint8))


def test_results_stay_what_they_were(rng, pool):
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
    assert pool.free


def test_environment_says_how_much():
    code = "from fastconv.runtime import memory as m; print(m._kept_bytes)"

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


def test_none_is_kept_where_none_shall_be(pool, monkeypatch):
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))
    assert _memory.empty((3,), F4).base is None


@pytest.mark.parametrize("shape", [(5, 7), (1, 300), (3,), (40, 2, 2), (1, 1, 50, 1), (2, 60, 3), (1000,), (0, 4)])
def test_long_casts_are_made_in_pieces(shape, rng, monkeypatch):
    """Signals are handled between chunks; a chunk has the maximum size, or is a single number."""
    monkeypatch.setattr(_arrays, "_CAST_BYTES", 100)
    x = rng.standard_normal(shape).astype(np.float32)
    cast = _arrays.prepare(x, np.dtype(np.float64))
    assert cast.dtype == np.float64 and cast.flags.c_contiguous and np.array_equal(cast, x)
    if len(shape) > 2:
        up = fastconv.upsample(x, 3)
        assert up[(..., *(slice(None, None, 3),) * (x.ndim - 2))].tolist() == x.tolist()
        assert np.count_nonzero(up) == np.count_nonzero(x)
