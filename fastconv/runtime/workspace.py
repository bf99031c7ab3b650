"""Workspaces: memory that a call needs besides its arguments and results. Each thread keeps its last workspace."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from fastconv.runtime import memory as _memory
from fastconv.runtime.memory import check_bytes

#: The largest workspace that a thread keeps for its next call, in bytes.
KEPT_BYTES = 1 << 25
#: The number of bytes of a cache line. Workspaces are aligned to cache lines.
_LINE = 64
#: A thread keeps no workspace while an address limit (``ulimit -v``) is set. It does not read the limit before it keeps
#: a workspace of at most this many bytes, because the system call would take too long.
_ASK_BYTES = 1 << 20


class _Owner:
    """Holds the workspace of one thread between calls, in `idle["memory"]`. During a call, `idle` is empty."""

    __slots__ = ("__weakref__", "idle")

    def __init__(self) -> None:
        self.idle: dict[str, tuple[np.ndarray, np.ndarray]] = {}


class _Kept(threading.local):
    def __init__(self) -> None:
        owner = _Owner()
        self._owner, self.idle = owner, owner.idle
        _owners[id(owner)] = owner


_owners: weakref.WeakValueDictionary[int, _Owner] = weakref.WeakValueDictionary()
_kept = _Kept()


class workspace:
    """A context manager that provides an uninitialised array, the workspace of one call.

    Each thread keeps its last workspace for its next call, because mapping new pages takes longer than the convolution
    of a small image. A nested call, for example from a finaliser, gets memory of its own. If a workspace needs more
    bytes than are free, an error is raised before it is allocated. A thread keeps no workspace after an exception, or
    while an address limit (``ulimit -v``) is set.
    """

    __slots__ = ("_array", "_buffer", "_keep")

    def __init__(self, what: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        buffer: Any
        buffer, array = _kept.idle.pop("memory", (None, None))
        self._keep = True
        # If shape and dtype are the same as in the last call, reuse the array object, because creating an array takes
        # time.
        if array is None or array.shape != shape or array.dtype is not dtype:
            nbytes = check_bytes(what, shape, dtype)
            if buffer is None or buffer.nbytes < nbytes + _LINE:
                buffer = array = None  # Free the old workspace before the new one is allocated.
                buffer = _memory.scratch(nbytes + _LINE, f"a workspace for {what}", _memory.BOUNDED)
                self._keep = not _memory.limited()
            # Align to a cache line. NumPy aligns to 16 bytes only, so a vector could extend over two cache lines.
            start = -buffer.__array_interface__["data"][0] % _LINE
            array = np.ndarray(shape, dtype, buffer, start)
        self._buffer: np.ndarray = buffer
        self._array: np.ndarray = array

    def __enter__(self) -> np.ndarray:
        return self._array

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self._keep and (nbytes := self._buffer.nbytes) <= KEPT_BYTES + _LINE:
            if nbytes > _ASK_BYTES and _memory.limited():
                return
            _kept.idle["memory"] = self._buffer, self._array


def release_workspaces() -> None:
    """Free the workspaces that threads keep for later calls. A workspace in use is freed when its call ends."""
    # Loop over a copy of the references, because threads may start and end during the loop.
    for reference in _owners.valuerefs():
        owner = reference()
        if owner is not None:
            owner.idle.clear()


def release_memory() -> None:
    """Return to the system the memory that fastconv keeps for later calls.

    This frees the memory of large results that no longer exist, and the workspaces of all threads. Existing results
    stay valid, and calls that run in other threads are not affected. Later calls keep memory again, unless
    ``FASTCONV_KEEP_MIB=0`` or an address limit (``ulimit -v``) is set.

    Returns
    -------
    None

    See Also
    --------
    threads, set_threads : how many threads a call uses, each with a workspace.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> out = fastconv.conv(np.ones((4, 16, 128, 128)), np.ones((16, 16, 3, 3)))
    >>> del out
    >>> fastconv.release_memory()
    """
    _memory.release()
    release_workspaces()
    _memory.trim()
