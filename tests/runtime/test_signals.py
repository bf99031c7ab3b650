"""Signal handlers that raise: a call stops within a short time, and no thread writes afterwards."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import faults
import numpy as np
import pytest

import fastconv
from fastconv import layers
from fastconv._ext.threads import team as _ext
from fastconv.convolution.dispatch import backward_data, backward_weights, forward
from fastconv.runtime import workers as _workers

pytestmark = [
    # If an exception is raised between `open` and its `with` block, the interpreter closes the file later, with a
    # warning.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers that signal"),
    pytest.mark.skipif(
        threading.current_thread() is not threading.main_thread(), reason="only the main thread hears signals"
    ),
]


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGALRM, before[0])
    signal.signal(signal.SIGINT, before[1])
    fastconv.set_threads(None)


def run(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, **options
    )


def test_exceptions_at_random_moments():
    """For 4 s, raise Exceptions and BaseExceptions in every kind of call while workers are busy; CI does it for longer."""
    result = run(faults.__file__, "--seconds", "4", "--only", "signals", timeout=200)
    assert result.returncode == 0 and "nothing broke" in result.stdout, result.stdout + result.stderr


def test_callers_and_killed_workers():
    """CI runs these and the other faults for longer."""
    result = run(faults.__file__, "--seconds", "1", "--only", "callers", "workers", timeout=200)
    assert result.returncode == 0 and "nothing broke" in result.stdout, result.stdout + result.stderr


def array(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def conv(algorithm, op, x_shape, w_shape, **options):
    """One op of a layer, called without the layer API."""

    def make():
        geometry = fastconv.conv_geometry(x_shape, w_shape, **options)
        x, w, dout = array(*x_shape), array(*w_shape), array(*geometry.out_shape)
        results = {"forward": (x, w, None, dout), "dx": (dout, w, x), "dw": (x, dout, w)}[op]
        run_op = {"forward": forward, "dx": backward_data, "dw": backward_weights}[op]
        inputs, result = results[:-1], np.empty_like(results[-1])
        return lambda: run_op(*inputs, geometry, result, algorithm, fastconv.get_threads())

    return make


def pool(kind, back=False, shape=(4, 8, 128, 130), **options):
    def make():
        x = array(*shape)
        pool_forward, backward = getattr(layers, f"{kind}_pool_forward"), getattr(layers, f"{kind}_pool_backward")
        out, cache = pool_forward(x, **options)
        return (lambda: backward(out, cache)) if back else (lambda: pool_forward(x, **options))

    return make


def layer(name, back, *arguments, shape=(16, 16, 64, 64)):
    def make():
        x = array(*shape)
        out, cache = getattr(layers, f"{name}_forward")(x, *arguments)
        if back:
            return lambda: getattr(layers, f"{name}_backward")(out, cache)
        return lambda: getattr(layers, f"{name}_forward")(x, *arguments)

    return make


def lowering(back):
    x = array(4, 16, 96, 98)
    cols = fastconv.im2col(x, 5, pad=2)
    return (lambda: fastconv.col2im(cols, x.shape, 5, pad=2)) if back else (lambda: fastconv.im2col(x, 5, pad=2))


def separable(x, w):
    return lambda: fastconv.conv(x, w, pad=31, algorithm="separable")


BIG = (8, 32, 64, 66), (48, 32, 3, 3)
DEEP = (2, 32, 96, 98), (32, 1, 9, 9)
WIDE = 8, 16, 256, 258
GAMMA = np.ones(16), np.zeros(16)
LONG = {
    **{
        f"{name} {op}": conv(name, op, *BIG, pad=1)
        for name in ("implicit", "winograd", "sparse")
        for op in ("forward", "dx", "dw")
    },
    **{
        f"toeplitz {op}": conv("toeplitz", op, (4, 16, 48, 50), (24, 16, 3, 3), pad=1) for op in ("forward", "dx", "dw")
    },
    **{f"depthwise {op}": conv("depthwise", op, *DEEP, pad=4, groups=32) for op in ("forward", "dx", "dw")},
    **{f"fft {op}": conv("fft", op, (6, 1, 700, 702), (1, 1, 31, 31), pad=15) for op in ("forward", "dx", "dw")},
    **{f"fft of channels {op}": conv("fft", op, (2, 16, 6000), (24, 16, 300)) for op in ("forward", "dx", "dw")},
    "fft of a volume": conv("fft", "forward", (1, 1, 60, 100, 100), (1, 1, 9, 9, 9)),
    "implicit of few positions": conv("implicit", "forward", (1, 1024, 4, 4), (1024, 1024, 3, 3), pad=1),
    "im2col": lambda: lowering(False),
    "col2im": lambda: lowering(True),
    "max_pool of 2": pool("max", shape=WIDE, kernel_size=(2, 2), stride=2),
    "max_pool of 2 back": pool("max", True, WIDE, kernel_size=(2, 2), stride=2),
    "max_pool of 9": pool("max", kernel_size=(9, 9), stride=1),
    "max_pool of 9 back": pool("max", True, kernel_size=(9, 9), stride=1),
    "max_pool of 40": pool("max", kernel_size=(40, 40), stride=1),
    "avg_pool of 2": pool("avg", shape=WIDE, kernel_size=(2, 2), stride=2),
    "avg_pool of 9": pool("avg", kernel_size=(9, 9), stride=1),
    "avg_pool of 9 back": pool("avg", True, kernel_size=(9, 9), stride=1),
    "avg_pool of 40": pool("avg", kernel_size=(40, 40), stride=3),
    "avg_pool of 40 back": pool("avg", True, kernel_size=(40, 40), stride=3),
    "lp_pool of 9": pool("lp", kernel_size=(9, 9), stride=1),
    "separable": lambda: separable(array(1, 1, 1500, 1500), np.ones((1, 1, 63, 63), np.float32)),
    "batchnorm": layer("spatial_batchnorm", False, *GAMMA, {"mode": "train"}),
    "batchnorm back": layer("spatial_batchnorm", True, *GAMMA, {"mode": "train"}),
    "groupnorm": layer("spatial_groupnorm", False, np.ones((1, 16, 1, 1)), np.zeros((1, 16, 1, 1)), 4),
    "layernorm": layer("layernorm", False, np.ones(4096), np.zeros(4096), shape=(256, 4096)),
    "lrn": layer("lrn", False, {"size": 5}),
    "lrn back": layer("lrn", True, {"size": 5}),
    "relu": layer("relu", False, shape=(64, 65536)),
    "tanh": layer("tanh", False, shape=(16, 65536)),
    "toeplitz_matrix": lambda: lambda: fastconv.toeplitz_matrix(array(16, 16, 3, 3), (16, 48, 48), pad=1),
}


@pytest.mark.parametrize(("name", "threads"), [*((name, 2) for name in LONG), *((name, 1) for name in list(LONG)[::4])])
def test_every_kernel_hears_signals(name, threads, monkeypatch):
    """A handler that raises stops the running kernel: FC_STOP is set in the shared state, and no kernel runs later."""
    made = []

    def words(helpers, grain):
        made.append(make_words(helpers, grain))
        return made[-1]

    make_words = faults.looking_always(_workers.work_queue)
    monkeypatch.setattr(_workers, "work_queue", words)
    fastconv.set_threads(threads)
    call = LONG[name]()
    call()
    assert made, "no kernel that hears signals was called"
    begin = time.perf_counter()
    call()
    seconds = time.perf_counter() - begin
    for attempt in range(400):
        made.clear()
        # Not every signal arrives within a kernel, so fractions of the call's time and fixed times are tried in turns.
        after = seconds * (attempt % 40 + 1) / 42 if attempt % 2 else 0.0001 * (attempt % 80 + 1)
        raised = faults.interrupted(call, max(after, 0.00005), faults.Timeout)
        stopped = [int(np.frombuffer(each, np.intp)[_ext.STOP]) for each in made]
        if any(stopped):
            break
    assert any(stopped), "no call was stopped from within"
    assert raised and stopped.index(1) == len(stopped) - 1


@pytest.mark.parametrize("algorithm", ["implicit", "winograd"])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_in_a_long_call(algorithm, threads):
    """The results are incomplete, and no thread changes them after the call."""
    x, w = array(1, 512, 128, 128), array(512, 512, 3, 3)
    out = np.full((1, 512, 128, 128), np.float32(faults.POISON))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(KeyboardInterrupt):
        fastconv.conv(x, w, pad=1, out=out, algorithm=algorithm, threads=threads)
    missing = out == np.float32(faults.POISON)
    assert missing.any()
    out.fill(faults.POISON)
    fastconv.conv(x[:, :, :40, :40], w, pad=1, algorithm=algorithm, threads=threads)
    assert (out == np.float32(faults.POISON)).all()


def test_a_handler_that_returns_changes_nothing():
    x, w = array(1, 256, 128, 128), array(256, 256, 3, 3)
    heard = []
    signal.signal(signal.SIGALRM, lambda *_: heard.append(fastconv.conv(x[:, :8], w[:, :8], threads=2)))
    expected = fastconv.conv(x, w, threads=2)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    result = fastconv.conv(x, w, threads=2)
    assert len(heard) == 1 and np.array_equal(result, expected)
    np.testing.assert_array_equal(heard[0], fastconv.conv(x[:, :8], w[:, :8], threads=2))


def test_threads_that_are_not_the_main_one_hear_nothing():
    """The main thread handles a signal that arrives while another thread is in a call."""
    x, w = array(1, 256, 128, 128), array(256, 256, 3, 3)
    expected = fastconv.conv(x, w, threads=2)
    results, done = [], threading.Event()

    def call():
        results.append(fastconv.conv(x, w, threads=2))
        done.set()

    def raising(*_):
        raise faults.Timeout

    signal.signal(signal.SIGALRM, raising)
    with pytest.raises(faults.Timeout):
        threading.Thread(target=call).start()
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        time.sleep(60)
    assert done.wait(60) and np.array_equal(results[0], expected)


def test_the_interpreter_ends_while_a_thread_is_in_a_call():
    code = """
        import threading, time, numpy as np, fastconv
        x, w = np.ones((1, 256, 128, 128), np.float32), np.ones((256, 256, 3, 3), np.float32)
        def forever():
            while True:
                fastconv.conv(x, w, threads=2, algorithm="implicit")
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.4)
        print("ends", flush=True)
    """
    result = run("-c", textwrap.dedent(code), timeout=100)
    assert result.returncode == 0 and result.stdout.strip() == "ends", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_in_a_handler():
    """In the child the call has lost its workers. It raises an error that says so, and later calls are right."""
    code = """
        import os, signal, numpy as np, fastconv
        x, w = np.ones((1, 256, 160, 160), np.float32), np.ones((256, 256, 3, 3), np.float32)
        small = x[:, :, :20, :20].copy()
        expected, of_small = (fastconv.conv(a, w, threads=2, algorithm="implicit") for a in (x, small))
        child = None
        def handler(*_):
            global child
            child = os.fork()
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            result = fastconv.conv(x, w, threads=2, algorithm="implicit")
        except RuntimeError as error:
            told = child == 0 and "forked" in str(error)
            again = fastconv.conv(small, w, threads=2, algorithm="implicit")
            os._exit(0 if told and np.array_equal(again, of_small) else 4)
        if child == 0:
            os._exit(5)
        assert np.array_equal(result, expected)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    result = run("-c", textwrap.dedent(code), timeout=100)
    assert result.stdout.strip() == "child 0", result.stdout + result.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the harness is made for POSIX threads")
def test_the_gate_without_python(tmp_path):
    """Callers and workers in C: every chunk is drawn once, stopped calls end, and waiting callers sleep."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    root = Path(__file__).parents[2]
    if compiler is None or not (root / "fastconv/_ext/threads/team.h").exists():
        pytest.skip("there is no compiler")
    program = tmp_path / "team"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", root / "fastconv/_ext"]
    subprocess.run([compiler, *options, root / "tests/c/team.c", "-o", program], check=True)
    result = subprocess.run([program, "1.5", "7"], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0 and " 0 wrong" in result.stdout, result.stdout
