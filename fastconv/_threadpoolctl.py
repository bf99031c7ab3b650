"""fastconv's threads among those that `threadpoolctl` limits. The one module that knows of it, and it needs none."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from fastconv import _threads
from fastconv._version import __version__

_registered: Any = None


def register_threadpoolctl() -> None:
    """Let `threadpoolctl` limit fastconv's threads, too.

    `import fastconv` does this where `threadpoolctl` is imported already; after
    it, call this once. A limit is the process's default then, as `set_threads`
    makes it, until the ``with`` block ends; `threads` blocks and the option
    ``threads=`` go before it. The library is called ``'fastconv'``, which
    ``user_api=`` and `threadpool_info` know it by.

    Raises
    ------
    ImportError
        If there is no `threadpoolctl`, or one before 3.2, which takes no other libraries.

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
        raise ImportError(f"threadpoolctl {version} cannot limit fastconv: 3.2 is the first that takes other libraries")


def register_if_loaded() -> None:
    """The same where `threadpoolctl` is imported, and nothing where it is not."""
    module = sys.modules.get("threadpoolctl")
    if module is not None:
        _register(module)


def _register(module: Any) -> bool:
    """Add our controller once; False where that cannot be."""
    global _registered
    if _registered is module:
        return True
    if not hasattr(module, "register") or not hasattr(module, "LibController"):
        return False

    class FastconvController(module.LibController):
        """Found by the library that holds the helper threads."""

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
