"""Threads: the option, the defaults, equal results, many callers, forks, shutdown."""

import os
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import kernels_for
from conftest import python

import fastconv
from fastconv.runtime import cpus as _cpus, threads as _threads


@pytest.fixture(autouse=True)
def restore(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    fastconv.set_threads(None)
    yield
    monkeypatch.undo()
    fastconv.set_threads(None)


def test_counts():
    cpus = _threads.cpu_count()
    fastconv.set_threads(3)
    assert fastconv.get_threads() == 3
    fastconv.set_threads(-1)
    assert fastconv.get_threads() == cpus
    with fastconv.threads(5):
        assert fastconv.get_threads() == 5
        with fastconv.threads(np.int64(1)):
            assert fastconv.get_threads() == 1
        assert fastconv.get_threads() == 5
    assert fastconv.get_threads() == cpus == _threads.resolve(None)
    assert _threads.resolve(-cpus) == 1


@pytest.mark.parametrize("bad", [0, 1.0, "2", True, -(10**6)])
def test_refused(bad):
    with pytest.raises((ValueError, TypeError), match="threads"):
        fastconv.set_threads(bad)
    with pytest.raises((ValueError, TypeError), match="threads"), fastconv.threads(bad):
        pass
    assert fastconv.get_threads() == _threads.cpu_count()


@pytest.mark.parametrize("many", [65, 10**6, 2**70])
def test_a_count_has_a_maximum(many):
    assert _threads.resolve(many) == _threads.MAX_THREADS == 64
    fastconv.set_threads(many)
    assert fastconv.get_threads() == 64
    with fastconv.threads(many):
        assert fastconv.get_threads() == 64


def test_more_threads_than_there_can_be():
    """The test runs in a process of its own, because its 63 workers stay."""
    code = """
        import numpy as np, fastconv
        from fastconv.runtime import workers as _workers
        x, w = np.ones((2, 1, 40, 40), np.float32), np.ones((1, 1, 3, 3), np.float32)
        for many in (10**6, 2**70):
            for algorithm in [*fastconv.algorithms(), "auto"]:
                assert (fastconv.conv(x, w, algorithm=algorithm, threads=many).round(3) == 9).all(), algorithm
            A = fastconv.toeplitz_operator(w, (1, 40, 40), threads=many)
            assert (A @ x[0].reshape(-1) == 9).all()
        assert _workers._pool.threads <= 63
        print("back")
    """
    result = python(code)
    assert result.stdout.strip() == "back", result.stderr


def test_a_helper_that_could_not_start_starts_later(monkeypatch):
    from fastconv._ext.threads import team

    def fail(*_):
        raise RuntimeError("can't start new thread")

    start = team.start_new_thread
    monkeypatch.setattr(team, "start_new_thread", fail)
    made = team.ThreadPool(3, 100, 100, lambda: 4, threading.get_ident())
    made.work_queue(2, 1)
    assert made.threads == made.active_workers == 0
    monkeypatch.setattr(team, "start_new_thread", start)
    made.work_queue(2, 1)
    assert made.threads == made.active_workers == 2


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("0::/", {"": "150000 100000"}, 2),  # a container of cgroup version 2; the quota is rounded up
        ("0::/", {"": "max 100000"}, None),
        ("0::/", {"": "20000 100000"}, 1),
        ("0::/a/b", {"": "max 100000", "a": "300000 100000", "a/b": "800000 100000"}, 3),  # the least along the path
        ("0::/a/b", {"a": "max 100000", "a/b": "400000 50000"}, 8),
        ("0::/a/b", {"other": "100000 100000"}, None),
        ("0::/../other", {"": "200000 100000", "../other": "100000 100000"}, 2),  # a path outside of the namespace
        ("0::/", {"": "garbage"}, None),
        ("0::/", {}, None),
        ("", {"": "100000 100000"}, None),
    ],
)
def test_quotas_of_control_groups(tmp_path, cgroup, files, cpus):
    group(tmp_path / "proc/self", cgroup=cgroup + "\n")
    for folder, text in files.items():
        group(tmp_path / "sys/fs/cgroup" / folder, cpu__max=text + "\n")
    assert _cpus.quota(str(tmp_path)) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 3), ("-1", None), ("50000", 1)])
@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("place", ["", "docker/1234"])
def test_quotas_of_control_groups_of_version_1(tmp_path, quota, cpus, controllers, place):
    group(tmp_path / "proc/self", cgroup=f"5:memory:/x\n4:{controllers}:/docker/1234\n0::/\n")
    files = {"cpu__cfs_quota_us": quota, "cpu__cfs_period_us": "100000"}
    group(tmp_path / "sys/fs/cgroup" / controllers / place, **files)
    assert _cpus.quota(str(tmp_path)) == cpus


def test_a_quota_counts_as_fewer_cpus(monkeypatch):
    monkeypatch.setattr(_cpus, "_quota", lambda: 1)
    assert _cpus.count() == _threads.cpu_count() == 1
    fastconv.set_threads(-1)
    assert fastconv.get_threads() == 1
    monkeypatch.setattr(_cpus, "_quota", lambda: 10**6)
    assert 1 <= _cpus.count() <= (os.cpu_count() or 1)


def test_the_context_is_of_one_thread():
    with fastconv.threads(7), ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastconv.get_threads).result() == _threads.cpu_count()


def test_environment():
    code = "import fastconv; print(fastconv.get_threads())"
    assert python(code, FASTCONV_NUM_THREADS="3").stdout.strip() == "3"
    result = python(code, FASTCONV_NUM_THREADS="2.5")
    assert result.returncode == 0 and result.stdout.strip() == str(_threads.cpu_count())
    assert "RuntimeWarning: FASTCONV_NUM_THREADS is '2.5'" in result.stderr


def test_environment_that_changed_later(monkeypatch):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "-1")
    fastconv.set_threads(None)
    assert fastconv.get_threads() == _threads.cpu_count()
    for bad in ("many", "0", "2.5", "-1000000"):
        monkeypatch.setenv("FASTCONV_NUM_THREADS", bad)
        with pytest.warns(RuntimeWarning, match=f"FASTCONV_NUM_THREADS is '{bad}'"):
            fastconv.set_threads(None)
        assert fastconv.get_threads() == _threads.cpu_count()


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("1", 1), ("1,4", 1), (" 1 ", 1), ("1000000", None), ("0", None), ("-1", None), ("many", None), ("", None)],
)
def test_limit_of_workers(limit, wanted, monkeypatch, recwarn):
    """Pools set OMP_NUM_THREADS.

    At most the number of CPUs counts, and other texts are ignored, because OpenMP warns of them.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.delenv("FASTCONV_NUM_THREADS", raising=False)
    fastconv.set_threads(None)
    assert fastconv.get_threads() == (wanted or _threads.cpu_count())
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "5")
    fastconv.set_threads(None)
    assert fastconv.get_threads() == 5 and not recwarn


def test_limit_of_workers_where_our_own_is_malformed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "many")
    with pytest.warns(RuntimeWarning, match="FASTCONV_NUM_THREADS is 'many'.*; using 1$"):
        fastconv.set_threads(None)
    assert fastconv.get_threads() == 1


def test_workers_of_joblib():
    """loky sets OMP_NUM_THREADS before workers import anything: `inner_max_num_threads`, or CPUs per worker."""
    code = """
        import joblib

        def count():
            import fastconv
            return fastconv.get_threads()

        for limit, wanted in ((1, 1), (None, max(1, joblib.cpu_count() // 2))):
            with joblib.parallel_config("loky", inner_max_num_threads=limit):
                counts = joblib.Parallel(n_jobs=2)(joblib.delayed(count)() for _ in range(2))
            assert counts == [wanted] * 2, (limit, counts)
        print("as told")
    """
    pytest.importorskip("joblib")
    result = python(code, FASTCONV_NUM_THREADS="")
    assert result.stdout.strip() == "as told", result.stderr


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
def test_results_do_not_depend_on_threads(threads, rng, monkeypatch):
    monkeypatch.setattr(_threads, "SERIAL_BYTES", 0)
    x = rng.standard_normal((3, 5, 20, 21)).astype(np.float32)
    w = rng.standard_normal((4, 5, 3, 3)).astype(np.float32)
    results = []
    for count in (1, threads, threads):
        out, cache = fastconv.conv_forward(x, w, None, pad=1, stride=2, threads=count, algorithm="im2col")
        pooled, pool_cache = fastconv.max_pool_forward(x, kernel_size=3, stride=2, threads=count)
        results.append(
            [out, *fastconv.conv_backward(out, cache)[:2], pooled, fastconv.max_pool_backward(pooled, pool_cache)]
        )
    for one, many, again in zip(*results, strict=True):
        assert np.array_equal(many, again)
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)


def test_eight_callers_at_once(rng):
    x = rng.standard_normal((4, 16, 40, 40)).astype(np.float32)
    expected = fastconv.im2col(x, 3, pad=1, threads=1)
    images = fastconv.col2im(expected, x.shape, 3, pad=1, threads=1)

    def call(_):
        cols = fastconv.im2col(x, 3, pad=1, threads=4)
        return np.array_equal(cols, expected) and np.array_equal(
            fastconv.col2im(cols, x.shape, 3, pad=1, threads=4), images
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(40)))


BIG = """
    import numpy as np, fastconv, os
    x = np.ones((4, 16, 64, 64), np.float32)
    def work():
        return float(fastconv.im2col(x, 3, pad=1, threads=2).sum())
    first = work()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use():
    code = textwrap.dedent(BIG) + textwrap.dedent("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if work() == first else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert work() == first
        print("ok")
    """)
    result = python(code)
    assert result.stdout.strip() == "ok", result.stderr


def test_at_interpreter_shutdown():
    code = textwrap.dedent(BIG) + textwrap.dedent("""
        import atexit
        atexit.register(lambda: print("ok" if work() == first else "wrong"))
    """)
    result = python(code)
    assert result.stdout.strip() == "ok", result.stderr


ALGORITHMS = [name for name in fastconv.algorithms() if name not in ("reference", "depthwise", "separable")]


def layer(algorithm, rng, dtype=np.float32):
    """A 3x3 layer of three images, large enough for several threads."""
    groups = 24 if algorithm in ("depthwise", "separable") else 1
    x = rng.standard_normal((3, 24, 21, 22)).astype(dtype)
    w = kernels_for(algorithm, rng.standard_normal((24, 24 // groups, 3, 3)).astype(dtype))
    return x, w, {"pad": 1, "groups": groups, "algorithm": algorithm}


def steps(x, w, dout=None, **options):
    out, cache = fastconv.conv_forward(x, w, None, **options)
    return [out, *fastconv.conv_backward(out if dout is None else dout, cache)[:2]]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "depthwise", "separable"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_repeats_agree_to_the_bit(algorithm, threads, rng, monkeypatch):
    monkeypatch.setattr(_threads, "SERIAL_BYTES", 0)
    x, w, options = layer(algorithm, rng)
    one = steps(x, w, **options, threads=1)
    many = steps(x, w, one[0], **options, threads=threads)
    for _ in range(5):
        again = steps(x, w, one[0], **options, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(many, again, strict=True))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(a).max())


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "depthwise", "separable"])
def test_eight_callers_of_every_algorithm(algorithm, rng, monkeypatch):
    monkeypatch.setattr(_threads, "SERIAL_BYTES", 0)
    x, w, options = layer(algorithm, rng)
    expected = steps(x, w, **options, threads=2)

    def call(_):
        return all(np.array_equal(a, b) for a, b in zip(steps(x, w, **options, threads=2), expected, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(16)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_every_algorithm_after_a_fork():
    code = f"""
        import os, sys, numpy as np, fastconv
        from fastconv.adapters import threadpoolctl as _threadpoolctl; from fastconv.runtime import threads as _threads
        _threads.SERIAL_BYTES = 0
        def work(algorithm):
            groups = 8 if algorithm in ("depthwise", "separable") else 1
            x, w = np.ones((4, 8, 20, 20), np.float32), np.ones((8, 8 // groups, 3, 3), np.float32)
            options = dict(pad=1, groups=groups, algorithm=algorithm, threads=2)
            out, cache = fastconv.conv_forward(x, w, None, **options)
            return [float(a.sum()) for a in (out, *fastconv.conv_backward(out, cache)[:2])]
        for algorithm in {[*ALGORITHMS, "depthwise", "separable"]}:
            first = work(algorithm)
            child = os.fork()
            if child == 0:
                os._exit(0 if work(algorithm) == first == work(algorithm) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, algorithm
            assert work(algorithm) == first, algorithm
        print("same")
    """
    result = python(code)
    assert result.stdout.strip() == "same", result.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages are made by Linux's mprotect")
def test_nothing_is_read_past_an_image():
    """An image that ends where readable memory ends; pointwise layers read it in place."""
    code = """
        import ctypes, itertools, mmap, numpy as np, fastconv
        memory = mmap.mmap(-1, 3 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None)
        assert libc.mprotect(ctypes.c_void_p(start + 2 * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        readable = np.frombuffer(memory, np.uint8)[: 2 * mmap.PAGESIZE]
        def at_the_end(shape):
            array = readable[readable.size - 4 * int(np.prod(shape)) :].view(np.float32).reshape(shape)
            array[...] = 1
            return array
        for algorithm, n in itertools.product(("im2col", "implicit", "auto"), (1, 2)):
            print(algorithm)
            for groups, size, c, f in [(1, 5, 3, 2), (2, 5, 1, 1), (2, 3, 2, 3), (4, 1, 4, 1), (64, 1, 1, 1), (3, 17, 2, 9)]:
                options = dict(groups=groups, algorithm=algorithm)
                w = np.ones((groups * f, c, 1), np.float32)
                out, cache = fastconv.conv_forward(at_the_end((n, groups * c, size)), w, None, **options)
                assert (out == c).all()
                dout = at_the_end(out.shape)
                dx, dw, _ = fastconv.conv_backward(dout, cache)
                assert (dx == f).all() and (dw == n * size).all()
        for algorithm, stride in itertools.product(("im2col", "implicit", "auto"), (1, 2, 3, 4)):
            print(algorithm)
            for size in (stride, 7 * stride, 16 * stride, 17 * stride - stride + 1, 40 * stride + 1):
                w = np.ones((2, 1, stride), np.float32)
                x = at_the_end((1, 1, size))
                out, cache = fastconv.conv_forward(x, w, None, stride=stride, algorithm=algorithm)
                assert (out == stride).all()
                dx, dw, _ = fastconv.conv_backward(at_the_end(out.shape), cache)
                assert (dx[..., : out.shape[-1] * stride] == 2).all() and (dw == out.shape[-1]).all()
        print("fine")
    """
    result = python(code)
    assert result.stdout.endswith("fine\n"), result.stdout + result.stderr


def test_helpers_that_sleep_at_the_gate_come_back(rng, monkeypatch):
    """Sleeping workers return after a moment without calls, and for calls of any kernel."""
    from fastconv.layers import relu_forward
    from fastconv.runtime import workers as _workers

    monkeypatch.setattr(_threads, "SERIAL_BYTES", 0)
    monkeypatch.setattr(_workers, "_pool", _workers._new_pool())
    fastconv.set_threads(2)
    x = rng.standard_normal((8, 8, 64, 64)).astype(np.float32)
    for pause in (0, 0, 0.02, 0.02, 0):
        np.testing.assert_array_equal(relu_forward(x)[0], np.maximum(x, 0))
        time.sleep(pause)
        assert _workers._pool.threads == 1
        fastconv.im2col(x, 3, threads=2)
    for _ in range(50):
        np.testing.assert_array_equal(relu_forward(x)[0], np.maximum(x, 0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_has_helpers_of_its_own():
    code = """
        import os, numpy as np, fastconv
        from fastconv.runtime import workers as _workers, threads as _threads
        from fastconv.layers import relu_forward
        _threads.SERIAL_BYTES = 0
        fastconv.set_threads(2)
        x = np.ones(100_000)
        relu_forward(x)
        child = os.fork()
        if child == 0:
            fresh = _workers._pool.threads == _workers._pool.active_workers == 0
            relu_forward(x)
            os._exit(0 if fresh and _workers._pool.threads == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("fresh")
    """
    result = python(code)
    assert result.stdout.strip() == "fresh", result.stderr
