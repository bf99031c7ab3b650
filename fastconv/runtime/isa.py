"""The instruction set of the kernels. FASTCONV_ISA names it; the default is the best that this CPU supports."""

from __future__ import annotations

import os
import warnings

from fastconv._ext import microkernel as _ext

#: The names of the instruction sets, in the order of their numbers in the kernels.
NAMES: tuple[str, ...] = _ext.isas


def usable() -> tuple[str, ...]:
    """Return the names of the compiled instruction sets that this CPU supports."""
    return tuple(name for i, name in enumerate(NAMES) if _ext.usable(i))


def compiled() -> tuple[str, ...]:
    """Return the names of the compiled instruction sets."""
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


#: The number of the instruction set in use; kernels take it as an argument.
current = _from_environment()

#: The vendor of this CPU and its family; 'generic' and 0 if unknown.
cpu: tuple[str, int] = _ext.cpu()


def kind() -> str:
    """Return the vendor, the family and the instruction set of this CPU, such as 'AuthenticAMD-26-avx512'.

    Rates are measured for each of these kinds of CPU.
    """
    return f"{cpu[0]}-{cpu[1]}-{NAMES[current]}"


#: For each instruction set, the number of bytes of a vector, and the time of a vector operation relative to AVX-512.
#: AVX2 executes two operations at a time, and the baseline has no fused multiply-add. With these factors, rates that
#: were measured for one instruction set can be used for another.
_VECTORS = {"baseline": (16, 0.9), "avx2": (32, 0.6), "avx512": (64, 1.0)}

#: For an instruction set, another one with vectors of half the width, and this half width in bytes.
_HALVES = {NAMES.index("avx512"): (NAMES.index("avx2"), 32)}


def narrow(nbytes: int) -> int:
    """Return the instruction set for rows of `nbytes` bytes. If a row fills only half a vector, return the instruction
    set with vectors of half the width, because two such vectors are as fast as one wide vector.
    """
    half, most = _HALVES.get(current, (current, 0))
    return half if nbytes <= most else current


def lanes(itemsize: int) -> int:
    """Return the number of elements in a vector of the instruction set in use."""
    return _VECTORS[NAMES[current]][0] // itemsize


#: The number of bytes that one vector operation counts as in the argument `work` of `threads.share`. A copy moves fewer
#: bytes in that time, but threads pay off for smaller amounts of work in registers.
BYTES_PER_OPERATION = 10


def relative() -> float:
    """Return the relative time of a vector operation in the instruction set in use."""
    return _VECTORS[NAMES[current]][1]
