"""bench-kernel: which calls it measures, how their work is counted, and the command line. No test asserts a rate."""

import re

import numpy as np
import pytest

from fastconv.__main__ import main
from fastconv.adapters import rich as _rich
from fastconv.geometry.pool import resolve_pool
from fastconv.layers.pool.kernels import plan_for
from fastconv.report import kernels
from fastconv.report.kernel_work import WORK, Work, copy, peak
from fastconv.runtime import isa as _isa, threads as _threads

FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
#: The operations of the calls in a cache that compute: 2 for each product of the direct sum.
OPERATIONS = {
    "microkernel": 2 * 32 * 14 * 14 * 32 * 9,
    "winograd": 2 * 32 * 14 * 14 * 32 * 9,
    "fft": 2 * 4 * 24 * 24 * 4 * 81,
    "depthwise": 2 * 32 * 14 * 14 * 9,
    "separable": 2 * 8 * 26 * 26 * 49,
    "sparse": 2 * 922 * 14 * 14,  # of 9216 weights, a tenth is not zero
    "toeplitz": 2 * 32 * 8 * 6 * 6 * 4 * 9,
}
#: The numbers that the other calls read and write, and the indices of 32 bits among them.
NUMBERS = {
    "pool": (8 * 32 * 32 + 2 * 8 * 15 * 15, 8 * 15 * 15),
    "pool_running": (4 * 48 * 48 + 2 * 4 * 34 * 34, 4 * 34 * 34),
    "norm": (2 * 8 * 8 * 8 * 8, 0),
    "lrn": (2 * 16 * 16 * 16, 0),
    "activation": (2 * 4 * 1024, 0),
    "planes": (8 * 32 * 32 + 8, 0),
    "copies": (2 * 16 * 32 * 32, 0),
    "borders": (8 * 28 * 28 + 8 * 32 * 32, 0),
}


@pytest.mark.parametrize("family", WORK)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_work_is_counted_and_done(family, dtype, isa):
    """The call in a cache runs with every instruction set, and its amount of work is that computed by hand."""
    with _threads.threads(1):
        work = WORK[family][0](dtype)
        work.call()
    if family in NUMBERS:
        numbers, indices = NUMBERS[family]
        assert (work.operations, work.nbytes) == (0, (numbers - indices) * dtype.itemsize + 4 * indices)
    elif family != "peak":
        assert (work.operations, work.nbytes) == (OPERATIONS[family], 0)


@pytest.mark.parametrize("family", [name for name in WORK if name != "peak"])
def test_the_second_call_has_more_work(family):
    small, usual = (make(FLOAT32) for make in WORK[family])
    assert small.size != usual.size
    assert small.operations + small.nbytes < usual.operations + usual.nbytes
    assert bool(small.operations) == bool(usual.operations) and bool(small.nbytes) == bool(usual.nbytes)


def test_work_of_the_yardsticks():
    assert peak(FLOAT32).operations == 2 * peak(FLOAT64).operations > 0
    assert copy(1000).nbytes == 1000 and copy(1).nbytes == 2
    copy(1000).call()


@pytest.mark.parametrize(
    "shape, k, stride, name",
    [
        ((1, 8, 32, 32), 3, 2, "rows"),
        ((4, 64, 112, 112), 3, 2, "rows"),
        ((1, 4, 48, 48), 15, 1, "axis by axis"),
        ((4, 16, 112, 112), 31, 1, "axis by axis"),
    ],
)
def test_pooling_is_computed_by_the_family_that_is_named(shape, k, stride, name):
    geometry = resolve_pool(shape, kernel_size=k, stride=stride, pad=0, dilation=1, ceil_mode=False)
    assert plan_for("maximum", geometry, FLOAT32, 1).name == name


class Clock:
    """A clock that only calls advance."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, operations):
        def call():
            self.now += seconds

        return Work("a size", operations, 0, call)


def test_a_rate_is_work_divided_by_time():
    clock = Clock()
    rate = kernels.measure_call("fft", clock.work(2.0, 600), clock.work(0.5, 1000), clock, seconds=3.0)
    assert rate == kernels.Rate("fft", "a size", 2.0, 300.0, "FLOP/s", 0.15)
    assert kernels.cells(rate) == ("fft", "a size", "2,000,000.0 us", "0.0 GFLOP/s", "15.0 % of peak")


def test_calls_without_operations_are_compared_with_a_copy(monkeypatch):
    clock = Clock()
    seen = []

    def plain_copy(nbytes):
        seen.append(nbytes)
        return clock.work(0.25, 0)._replace(nbytes=nbytes)

    monkeypatch.setattr(kernels, "copy", plain_copy)
    work = clock.work(0.5, 0)._replace(nbytes=4096)
    rate = kernels.measure_call("norm", work, clock.work(1.0, 1), clock, seconds=1.0)
    assert (rate.rate, rate.unit, rate.share, seen) == (8192.0, "B/s", 0.5, [4096])
    assert kernels.cells(rate)[-1] == "50.0 % of copy"


@pytest.mark.parametrize("installed", [True, False], ids=["rich", "plain"])
def test_command(installed, monkeypatch, capsys):
    if installed:
        pytest.importorskip("rich")
    monkeypatch.setattr(_rich, "is_installed", lambda: installed)
    monkeypatch.setenv("COLUMNS", "120")
    before, name = _isa.current, _isa.usable()[0]
    assert main(["bench-kernel", "planes", "activation", "--isa", name, "--dtype", "float64"]) == 0
    shown = capsys.readouterr().out
    assert f"{name} kernels, float64" in shown and "plain copy" in shown
    rows = [line for line in shown.splitlines() if "GB/s" in line and "us" in line]
    assert [re.search(r"[a-z]+", row)[0] for row in rows] == ["activation", "activation", "planes", "planes"]
    assert ["4x1024" in row for row in rows] == [True, False, False, False]
    assert _isa.current == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gemm"], "family must be one of 'peak', 'microkernel', "),
        (["--isa", "sse9"], "isa must be one of 'baseline'"),
        (["--dtype", "complex64"], "dtype"),
        (["--dtype", "nonsense"], "dtype must be a dtype, got 'nonsense'"),
    ],
)
def test_wrong_arguments_of_the_command(arguments, message, capsys):
    assert main(["bench-kernel", *arguments]) == 2
    shown = capsys.readouterr()
    assert f"python -m fastconv bench-kernel: {message}" in shown.err and not shown.out


def test_instruction_set_is_restored_after_an_error():
    before = _isa.current
    with pytest.raises(ZeroDivisionError), kernels.isa_in_use("baseline"):
        assert _isa.NAMES[_isa.current] == "baseline"
        raise ZeroDivisionError
    assert _isa.current == before
