"""The instruction set of the kernels. `FASTCONV_ISA` selects it; the default is the best that this CPU supports."""

from __future__ import annotations

import os
import warnings

from fastconv._ext.gemm import microkernel as _ext

#: The names of the instruction sets. Kernels take the index of a name as an argument.
NAMES: tuple[str, ...] = _ext.isas


def usable() -> tuple[str, ...]:
    """Return the names of the instruction sets for which kernels were compiled and which this CPU supports."""
    return tuple(name for i, name in enumerate(NAMES) if _ext.usable(i))


def compiled() -> tuple[str, ...]:
    """Return the names of the instruction sets for which kernels were compiled."""
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


#: The index in `NAMES` of the instruction set in use.
current = _from_environment()

#: The vendor and the family of this CPU, or 'generic' and 0 if they are unknown.
cpu: tuple[str, int] = _ext.cpu()


def kind() -> str:
    """Return the kind of CPU: its vendor, its family and the instruction set in use, such as 'AuthenticAMD-26-avx512'.

    The cost model has measured times for each kind of CPU.
    """
    return f"{cpu[0]}-{cpu[1]}-{NAMES[current]}"


#: For each instruction set, the number of bytes of a vector, and the time of one vector operation as a multiple of the
#: time with AVX-512. The time with AVX2 is below 1, because a CPU runs two AVX2 operations at a time. With these times,
#: the cost model converts times measured with one instruction set to another instruction set.
_VECTORS = {"baseline": (16, 0.9), "avx2": (32, 0.6), "avx512": (64, 1.0)}

#: Maps AVX-512 to AVX2, whose vectors have half the width, and to the width of AVX2 vectors in bytes.
_HALVES = {NAMES.index("avx512"): (NAMES.index("avx2"), 32)}


def narrow(nbytes: int) -> int:
    """Return the index in `NAMES` of the instruction set for rows of `nbytes` bytes. It is AVX2 in place of AVX-512 if
    an AVX2 vector is wide enough for a whole row.
    """
    half, most = _HALVES.get(current, (current, 0))
    return half if nbytes <= most else current


def lanes(itemsize: int) -> int:
    """Return the number of elements in a vector of the instruction set in use."""
    return _VECTORS[NAMES[current]][0] // itemsize


#: `threads.share` measures work in bytes. One vector operation counts as this number of bytes, although a copy moves
#: fewer bytes in the same time. Because of the higher count, a call that computes in registers uses several threads
#: even if a copy of the same duration uses one thread.
BYTES_PER_OPERATION = 10


def relative() -> float:
    """Return the time of a vector operation of the instruction set in use, as a multiple of the time with AVX-512."""
    return _VECTORS[NAMES[current]][1]
