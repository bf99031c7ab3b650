"""The instruction set of the kernels: the best one of this CPU, or that of FASTCONV_ISA."""

from __future__ import annotations

import os
import warnings

from fastconv._ext import implicit as _ext

#: The names of the instruction sets by their index in the kernels.
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


#: The index of the instruction set in use, which is passed to kernels.
current = _from_environment()

#: The vendor of this CPU and its family; 'generic' and 0 if unknown.
cpu: tuple[str, int] = _ext.cpu()


def kind() -> str:
    """The kind of CPU, for which rates are measured: vendor, family and instruction set, as
    'AuthenticAMD-26-avx512'.
    """
    return f"{cpu[0]}-{cpu[1]}-{NAMES[current]}"


#: For each instruction set the bytes of a vector, and the time of a vector operation relative to AVX-512: two of AVX2
#: run at a time, and the baseline has no fused multiply-add. With these times, rates of one instruction set also serve
#: one that was not measured.
_VECTORS = {"baseline": (16, 0.9), "avx2": (32, 0.6), "avx512": (64, 1.0)}

#: For each instruction set the one with vectors of half the bytes.
_HALVES = {NAMES.index("avx512"): (NAMES.index("avx2"), 32)}


def narrow(nbytes: int) -> int:
    """The instruction set for rows of so many bytes, such that vectors are no wider than the rows; two narrow
    vectors are as fast as a wide one.
    """
    half, most = _HALVES.get(current, (current, 0))
    return half if nbytes <= most else current


def lanes(itemsize: int) -> int:
    """The number of elements of a vector of the instruction set in use."""
    return _VECTORS[NAMES[current]][0] // itemsize


#: The bytes that count as much as a vector operation, for `_threads.share`. A copy moves fewer bytes in that time, but
#: threads pay sooner for work in registers.
BYTES_PER_OPERATION = 10


def relative() -> float:
    """The relative time of a vector operation in the instruction set in use."""
    return _VECTORS[NAMES[current]][1]
