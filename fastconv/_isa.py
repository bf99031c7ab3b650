"""Which instruction set the kernels use: the best this CPU has, or what FASTCONV_ISA asks for."""

from __future__ import annotations

import os
import warnings

from fastconv._ext import implicit as _ext

#: Names by index, as the kernels know them.
NAMES: tuple[str, ...] = _ext.isas


def usable() -> tuple[str, ...]:
    """The instruction sets that were compiled and that this CPU runs."""
    return tuple(name for i, name in enumerate(NAMES) if _ext.usable(i))


def compiled() -> tuple[str, ...]:
    """The instruction sets that were compiled."""
    return tuple(name for i, name in enumerate(NAMES) if _ext.compiled(i))


def _from_environment() -> int:
    best = NAMES.index(usable()[-1])
    wanted = os.environ.get("FASTCONV_ISA", "").strip().lower()
    if not wanted or wanted in usable():
        return NAMES.index(wanted) if wanted else best
    warnings.warn(
        f"FASTCONV_ISA is {wanted!r}, which this CPU or build does not have; it has {', '.join(usable())}; "
        f"using {NAMES[best]}",
        RuntimeWarning,
        stacklevel=2,
    )
    return best


#: The index the kernels are called with.
current = _from_environment()

#: The maker of this CPU and its family: 'generic' and 0 where nothing tells.
cpu: tuple[str, int] = _ext.cpu()


def kind() -> str:
    """The kind of CPU that rates are measured for, as 'AuthenticAMD-26-avx512': maker, family, instruction set."""
    return f"{cpu[0]}-{cpu[1]}-{NAMES[current]}"


#: What an operation on a vector takes against one of AVX-512, where two of AVX2 run at a time and the baseline
#: has no fused multiply-add: rates measured in one set then do for another that was not.
_RELATIVE = {"baseline": 0.9, "avx2": 0.6, "avx512": 1.0}

#: Instruction sets whose vectors are of half as many bytes: these.
_HALVES = {NAMES.index("avx512"): (NAMES.index("avx2"), 32)}


def narrow(nbytes: int) -> int:
    """The instruction set for rows of so many bytes: no wider vectors than they need, of which two are as quick."""
    half, most = _HALVES.get(current, (current, 0))
    return half if nbytes <= most else current


def lanes(itemsize: int) -> int:
    """Elements of a vector of the instruction set in use."""
    return 16 * (1, 2, 4)[current] // itemsize


#: Bytes that count as as much work as an operation on a vector, for `_threads.share`: a copy moves fewer in that
#: time, but waking a thread pays sooner where the work is in registers.
BYTES_PER_OPERATION = 10


def relative() -> float:
    """What an operation on a vector takes in the instruction set in use."""
    return _RELATIVE[NAMES[current]]
