"""Support for `threadpoolctl`, which limits the threads of libraries. fastconv works without `threadpoolctl`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from fastconv._version import __version__
from fastconv.runtime import threads as _threads

_registered: Any = None


def register_threadpoolctl() -> None:
    """Let `threadpoolctl` limit fastconv's threads, too.

    If `threadpoolctl` is imported before fastconv, ``import fastconv`` calls this
    function itself. If `threadpoolctl` is imported later, call this function once.
    ``threadpool_limits(n)`` then sets the default of the process, as `set_threads`
    does, until its ``with`` block ends. ``with fastconv.threads(n)`` and the
    option ``threads=`` override the limit. In ``user_api=`` and `threadpool_info`,
    the name of the library is ``'fastconv'``.

    Raises
    ------
    ImportError
        If `threadpoolctl` is not installed, or is older than 3.2, which supports no other libraries.

    Examples
    --------
    >>> import fastconv
    >>> from threadpoolctl import threadpool_limits
    >>> fastconv.register_threadpoolctl()
    >>> with threadpool_limits(1):
    ...     fastconv.get_threads()
    1
    """
    module = importlib.import_module("threadpoolctl")
    if not _register(module):
        version = getattr(module, "__version__", "")
        raise ImportError(f"threadpoolctl {version} cannot limit the threads of fastconv; install version 3.2 or later")


def register_if_loaded() -> None:
    """Register a controller for fastconv if `threadpoolctl` is imported already. Otherwise do nothing."""
    module = sys.modules.get("threadpoolctl")
    if module is not None:
        _register(module)


def _register(module: Any) -> bool:
    """Register a controller for fastconv once. Return False if this version of `threadpoolctl` cannot register one."""
    global _registered
    if _registered is module:
        return True
    if not hasattr(module, "register") or not hasattr(module, "LibController"):
        return False

    class FastconvController(module.LibController):
        """Sets the number of fastconv's threads. `threadpoolctl` uses this class once the compiled module `team` is
        loaded.
        """

        user_api = internal_api = "fastconv"
        filename_prefixes = ("team.",)
        check_symbols = ("PyInit_team",)

        def get_num_threads(self) -> int:
            return _threads.default()

        def set_num_threads(self, num_threads: int) -> None:
            _threads.set_threads(num_threads)

        def get_version(self) -> str:
            return __version__

    module.register(FastconvController)
    _registered = module
    return True
