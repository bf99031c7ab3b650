"""Faults that must not break a call: signals that raise, forks, concurrent calls, failed allocations, killed workers.

    python tests/faults.py [--seconds 60] [--seed N] [--only signals callers forks memory workers]

Results must equal those of a quiet run to the bit. The exit status is 1 if a result is wrong, if anything writes to an
array after its call has ended, or if a process crashes. If a process hangs, a watchdog prints all stacks.
"""

import argparse
import contextlib
import faulthandler
import functools
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from cases import kernels_for

import fastconv
from fastconv import layers
from fastconv._ext.threads import team
from fastconv.runtime import workers as _workers

#: A step that takes more seconds counts as hanging, even on a heavily loaded machine.
HANG = 100
POISON = -7.25e30
ALGORITHMS = [name for name in fastconv.algorithms() if name not in ("reference", "depthwise", "separable")]


class Timeout(Exception):
    """A subclass of Exception, as time-out tools raise."""


class Interrupt(BaseException):
    """A subclass of BaseException, as Ctrl-C raises."""


def check(condition, what):
    if not condition:
        print(f"WRONG: {what}", flush=True)
        os._exit(1)


def conv(rng, algorithm, threads, groups=1):
    """Forward and backward of a layer that takes some milliseconds."""
    x = rng.standard_normal((4, 24, 40, 41)).astype(np.float32)
    w = kernels_for(algorithm, rng.standard_normal((24, 24 // groups, 3, 3)).astype(np.float32))
    options = {"pad": 1, "groups": groups, "algorithm": algorithm, "threads": threads}

    def step():
        out, cache = fastconv.conv_forward(x, w, None, **options)
        return [out, *fastconv.conv_backward(out, cache)[:2]]

    return step


def operations(rng, native=False):
    """Calls by name, each of which returns a list of arrays.

    `native` selects those that run only fastconv's and NumPy's code.
    """
    x = rng.standard_normal((8, 16, 64, 66)).astype(np.float32)
    cols = fastconv.im2col(x, 3, pad=1)
    flat = rng.standard_normal((16, 60000))

    def max_pool(size):
        def step():
            out, cache = layers.max_pool_forward(x, kernel_size=size, stride=2)
            return [out, layers.max_pool_backward(out, cache)]

        return step

    def batchnorm():
        out, cache = layers.spatial_batchnorm_forward(x, np.ones(16), np.zeros(16), {"mode": "train"})
        return [out, *layers.spatial_batchnorm_backward(out, cache)]

    steps = {
        f"{name}, {threads} threads": conv(rng, name, threads)
        for name in (("implicit", "winograd", "sparse") if native else (*ALGORITHMS, "auto"))
        for threads in (2, 3)
    }
    return steps | {
        "depthwise": conv(rng, "depthwise", 2, groups=24),
        "separable": conv(rng, "separable", 2, groups=24),
        "im2col": lambda: [fastconv.im2col(x, 3, pad=1, threads=2)],
        "col2im": lambda: [fastconv.col2im(cols, x.shape, 3, pad=1, threads=2)],
        "max_pool of 2": max_pool((2, 2)),
        "max_pool of 21": max_pool((21, 21)),
        "batchnorm": batchnorm,
        "relu": lambda: [layers.relu_forward(flat)[0]],
    }


def same(results, expected):
    return len(results) == len(expected) and all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


def begin(name):
    """Begin a step. If the step hangs, the process prints its stacks and ends."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    return name


# --- signals -------------------------------------------------------------------------------------------------------


def interrupted(call, delay, kind):
    """Whether a signal handler raised `kind` within `call`, `delay` seconds after its start."""
    armed = True

    def handler(*_):
        if armed:
            raise kind

    signal.signal(signal.SIGALRM, handler)
    # Python ignores an exception that a handler raises within a callback of the garbage collector.
    collects = gc.isenabled()
    gc.disable()
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        call()
        armed = False
    except kind:
        return True
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if collects:
            gc.enable()
    return False


def looking_always(words):
    """The same as `_workers.work_queue`, but calls check for signals in every draw instead of every 50 ms."""

    def of_a_call(helpers, grain):
        made = words(helpers, grain)
        np.frombuffer(made, np.intp)[team.PERIOD] = 0
        return made

    return of_a_call


def signals(seconds, seed):
    """After an exception at any moment of a call, no thread writes, the exception is not lost, and later calls are right."""
    rng, moments = np.random.default_rng(seed), random.Random(seed)
    swallowed = []
    sys.unraisablehook = lambda lost: swallowed.append((lost.exc_value, lost.object))
    steps = operations(rng)
    expected = {name: step() for name, step in steps.items()}
    x = rng.standard_normal((4, 16, 64, 66)).astype(np.float32)
    w = rng.standard_normal((24, 16, 3, 3)).astype(np.float32)
    tall = rng.standard_normal((1, 1, 2000, 2000)).astype(np.float32)
    cols, out, image = np.empty((1, 3, 2000**2), np.float32), np.empty((4, 24, 64, 66), np.float32), np.empty_like(x)
    source = fastconv.im2col(x, 3, pad=1)
    # Calls that write to arrays of the caller.
    writers = {
        # Three long chunks for two threads: one thread waits for the other, which could write late.
        "im2col": (cols, lambda: fastconv.im2col(tall, (3, 1), pad=((1, 1), (0, 0)), threads=2, out=cols)),
        "col2im": (image, lambda: fastconv.col2im(source, x.shape, 3, pad=1, threads=3, out=image)),
    }
    for algorithm in ALGORITHMS:
        call = functools.partial(fastconv.conv, x, w, pad=1, threads=3, algorithm=algorithm, out=out)
        writers[f"conv by {algorithm}"] = out, call
    times = {name: time_of(call) for name, (_, call) in writers.items()}
    times |= {name: time_of(step) for name, step in steps.items()}

    def moment(name):
        return max(1e-5, moments.random() * 1.2 * times[name])

    usual, always = _workers.work_queue, looking_always(_workers.work_queue)
    end, caught, calls = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        _workers.work_queue = moments.choice([usual, always])
        kind = moments.choice([Timeout, Interrupt])
        name = moments.choice([*writers, *["im2col"] * len(writers)])
        to, call = writers[name]
        begin(name)
        calls += 1
        if interrupted(call, moment(name), kind):
            caught += 1
            some = to.reshape(-1)[::1024]
            some.fill(POISON)
            time.sleep(0.005)
            check(bool((some == np.float32(POISON)).all()), f"{name} wrote after it had ended with {kind.__name__}")
        name = moments.choice(list(steps))
        begin(name)
        calls += 1
        caught += interrupted(steps[name], moment(name), kind)
        name = moments.choice([name, *steps])
        check(same(steps[name](), expected[name]), f"{name} after an exception")
        lost = [f"{error!r} in {where}" for error, where in swallowed if isinstance(error, (Timeout, Interrupt))]
        check(not lost, f"swallowed: {lost}")
    print(f"signals: {caught} exceptions in {calls} calls", flush=True)
    check(caught >= seconds / 2, "too few exceptions to have shown anything")


def time_of(call):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return max(times)


# --- callers and forks ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def callers(steps, expected, seed):
    """Start eight threads that call without pause. Returns a list with one number, the count of their calls."""
    over, made = threading.Event(), [0]

    def run(number):
        moments = random.Random(seed * 100 + number)
        while not over.is_set():
            name = moments.choice(list(steps))
            check(same(steps[name](), expected[name]), f"{name} in one of eight threads")
            made[0] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        over.set()
        for thread in threads:
            thread.join()


def callers_at_once(seconds, seed):
    """Eight threads call at once, while calls of the main thread are interrupted."""
    moments = random.Random(seed)
    steps = operations(np.random.default_rng(seed))
    expected = {name: step() for name, step in steps.items()}
    end, caught = time.monotonic() + seconds, 0
    begin("callers")
    with callers(steps, expected, seed) as made:
        while time.monotonic() < end:
            begin("callers")
            name = moments.choice(list(steps))
            caught += interrupted(steps[name], max(1e-5, moments.random() * 0.05), Timeout)
            check(same(steps[name](), expected[name]), f"{name} beside eight threads")
    print(f"callers: {made[0]} calls of eight threads, {caught} exceptions beside them", flush=True)


def forks(seconds, seed):
    """A child that is forked while other threads are in calls must compute right results and exit."""
    moments = random.Random(seed)
    steps = operations(np.random.default_rng(seed), native=True)
    expected = {name: step() for name, step in steps.items()}
    end, made = time.monotonic() + seconds, 0
    begin("forks")
    with callers(steps, expected, seed):
        while time.monotonic() < end:
            begin("forks")
            names = moments.sample(list(steps), 3)
            child = os.fork()
            if child == 0:
                # The watchdog's thread does not exist in the child, and faulthandler would wait for it.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                faulthandler.register(signal.SIGALRM, chain=True)
                signal.alarm(HANG // 2)
                os._exit(0 if all(same(steps[name](), expected[name]) for name in names) else 3)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            check(status == 0, f"a child that ran {names} ended with {status}")
            made += 1
    print(f"forks: {made} children", flush=True)


# --- memory --------------------------------------------------------------------------------------------------------


def memory(seconds, seed):
    """In processes with little address space, a call must give the right result or raise MemoryError."""
    end, made, failed = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        begin("memory")
        seed += 1
        command = [sys.executable, __file__, "--limited", str(seed)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
        check(result.returncode == 0, f"{' '.join(command[1:])} ended with {result.returncode}: {result.stderr}")
        made += 1
        failed += int(result.stdout)
    print(f"memory: {failed} calls without memory in {made} processes", flush=True)
    check(failed > 0, "no allocation failed: nothing was shown")


def limited(seed):
    """The program of a process with little address space; it prints how many calls ran out of memory."""
    import resource

    faulthandler.dump_traceback_later(HANG / 2, exit=True)
    moments = random.Random(seed)
    steps = operations(np.random.default_rng(seed), native=True)
    expected = {name: step() for name, step in steps.items()}
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    failed = 0
    for _ in range(6):
        room = moments.randrange(0, 24 << 20)
        for name in moments.sample(list(steps), 4):
            resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
            results = None
            with contextlib.suppress(MemoryError):
                results = steps[name]()
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            failed += results is None
            check(results is None or same(results, expected[name]), f"{name} with {room} bytes")
            del results
        name = moments.choice(list(steps))
        check(same(steps[name](), expected[name]), f"{name} once there is memory again")
    print(failed)


# --- workers -------------------------------------------------------------------------------------------------------


def endless(seed, shared, begun):
    """A worker process that writes to memory shared with its parent until it is killed."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8, 16, 64, 64)).astype(np.float32)
    cols = np.frombuffer(shared, np.float32).reshape(8, 16 * 9, 64 * 64)
    while True:
        begun.set()
        fastconv.im2col(x, 3, pad=1, threads=3, out=cols)


def workers(seconds, seed):
    """A worker is killed in the middle of a call; its parent and the next worker must continue."""
    moments = random.Random(seed)
    steps = operations(np.random.default_rng(seed), native=True)
    expected = {name: step() for name, step in steps.items()}
    context = multiprocessing.get_context("fork")
    shared = context.RawArray("f", 8 * 16 * 9 * 64 * 64)
    cols = np.frombuffer(shared, np.float32)
    end, made = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        begin("workers")
        begun = context.Event()
        worker = context.Process(target=endless, args=(seed, shared, begun))
        worker.start()
        check(begun.wait(HANG / 2), "a worker that does not begin")
        name = moments.choice(list(steps))
        check(same(steps[name](), expected[name]), f"{name} beside a worker")
        time.sleep(moments.random() * 0.02)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        check(worker.exitcode == -signal.SIGKILL, f"a worker ended with {worker.exitcode}")
        cols.fill(POISON)
        check(same(steps[name](), expected[name]), f"{name} after a worker was killed")
        check(bool((cols == np.float32(POISON)).all()), "a worker that was killed still writes")
        made += 1
    print(f"workers: {made} killed", flush=True)


#: The kinds of faults, and the share of the time for each.
FAULTS = {
    "signals": (signals, 0.35),
    "callers": (callers_at_once, 0.2),
    "forks": (forks, 0.15),
    "memory": (memory, 0.2),
    "workers": (workers, 0.1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--limited", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limited is not None:
        limited(options.limited)
        return
    print(f"seed {options.seed}, {options.seconds:g} s: {', '.join(options.only)}", flush=True)
    parts = sum(FAULTS[name][1] for name in options.only)
    for name in options.only:
        fault, part = FAULTS[name]
        fault(options.seconds * part / parts, options.seed)
    faulthandler.cancel_dump_traceback_later()
    print("nothing broke")


if __name__ == "__main__":
    main()
