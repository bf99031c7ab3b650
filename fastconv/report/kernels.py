"""The rates of the compiled kernels on this machine, for `python -m fastconv bench-kernel`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastconv.checks import arrays as _arrays
from fastconv.layers import calls as _calls
from fastconv.report.kernel_work import WORK, Work, copy, peak
from fastconv.runtime import isa as _isa, threads as _threads

#: The number of pairs of runs of a measurement.
_RUNS = 15
#: The length of a run, in seconds, unless a single call takes longer.
_SECONDS = 2e-3

#: The columns of the table.
HEADER = ("family", "size", "time of a call", "rate", "share")
#: What the columns mean, below the table.
NOTE = (
    f"One thread; medians of {_RUNS} runs. Peak is the multiply-add peak of this CPU, and copy is a plain copy of as "
    "many bytes. The operations of a convolution are those of the direct sum; winograd, fft and separable execute "
    "fewer, so their share may be above 100 %."
)


class Rate(NamedTuple):
    """The measured rate of one call."""

    family: str
    size: str
    #: The time of a call.
    seconds: float
    #: Operations or bytes per second.
    rate: float
    #: 'FLOP/s' or 'B/s'.
    unit: str
    #: The rate of the kernel divided by the rate of the yardstick. The kernel and the yardstick are timed in turns.
    share: float


def check_families(families: Iterable[str]) -> tuple[str, ...]:
    """Return the families to measure, in the order of the table; none means all. An unknown name is an error."""
    wanted = tuple(families)
    for name in wanted:
        if name not in WORK:
            raise ValueError(f"family must be one of {', '.join(map(repr, WORK))}, got {name!r}")
    return tuple(name for name in WORK if name in wanted or not wanted)


@contextmanager
def isa_in_use(name: str | None) -> Iterator[None]:
    """Use the kernels of another instruction set inside a ``with`` block; None means the one in use."""
    if name is not None and name not in _isa.usable():
        legal = ", ".join(map(repr, _isa.usable()))
        raise ValueError(f"isa must be one of {legal}, which this CPU and this build have, got {name!r}")
    before = _isa.current
    try:
        if name is not None:
            _isa.current = _isa.NAMES.index(name)
            _calls.clear()
        yield
    finally:
        if _isa.current != before:
            _isa.current = before
            _calls.clear()


def measure(families: Iterable[str] = (), isa: str | None = None, dtype: Any = "float32") -> Iterator[Rate]:
    """Yield the rate of each call of some families, or of all, measured one after the other."""
    wanted, found = check_families(families), _arrays.float_dtype("dtype", dtype)
    with isa_in_use(isa), _threads.threads(1):
        for family in wanted:
            for make in WORK[family]:
                yield measure_call(family, make(found), peak(found))


def measure_call(
    family: str, work: Work, of_peak: Work, clock: Callable[[], float] = time.perf_counter, seconds: float = _SECONDS
) -> Rate:
    """Measure one call. Runs of the call and of its yardstick take turns, so both have the same clock rate of the CPU.

    The yardstick is `of_peak` if the operations of the call are counted, and a copy of as many bytes if not.
    """
    yardstick = of_peak if work.operations else copy(work.nbytes)
    calls, of_yardstick = _calls_of_a_run(work, clock, seconds), _calls_of_a_run(yardstick, clock, seconds)
    times, shares = [], []
    for _ in range(_RUNS):
        times.append(_run(work, calls, clock))
        shares.append(_rate(work, times[-1]) / _rate(yardstick, _run(yardstick, of_yardstick, clock)))
    median = statistics.median(times)
    unit = "FLOP/s" if work.operations else "B/s"
    return Rate(family, work.size, median, _rate(work, median), unit, statistics.median(shares))


def _rate(work: Work, seconds: float) -> float:
    return (work.operations or work.nbytes) / seconds


def _run(work: Work, calls: int, clock: Callable[[], float]) -> float:
    """Return the time of a call, measured over some calls."""
    begin = clock()
    for _ in range(calls):
        work.call()
    return (clock() - begin) / calls


def _calls_of_a_run(work: Work, clock: Callable[[], float], seconds: float) -> int:
    """Return the number of calls, a power of two, that take the length of a run."""
    calls = 1
    while _run(work, calls, clock) * calls < seconds:
        calls *= 2
    return calls


def cells(rate: Rate) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        rate.family,
        rate.size,
        f"{rate.seconds * 1e6:,.1f} us",
        f"{rate.rate / 1e9:.1f} G{rate.unit}",
        f"{100 * rate.share:.1f} % of {'peak' if rate.unit == 'FLOP/s' else 'copy'}",
    )


def title(isa: str | None, dtype: Any) -> str:
    """Return the line above the table."""
    return f"{isa or _isa.NAMES[_isa.current]} kernels, {_arrays.float_dtype('dtype', dtype)}"


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as text: two columns aligned at the left, and all others at the right."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{n}}" if i < 2 else f"{cell:>{n}}" for i, (cell, n) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
