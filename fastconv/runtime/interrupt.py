"""A handler for Ctrl-C while ``python -m fastconv`` is still importing modules. It ends the process with status 130,
without a traceback.

The package imports this module first. In `__main__` the handler would be installed too late, because Python imports the
package before it runs `__main__`.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise


def _leave(*_: object) -> None:
    # Do not raise SystemExit here, because a running import might catch it.
    os._exit(130)


def _is_program() -> bool:
    """Return whether Python was started with ``-m fastconv``.

    `sys.argv[0]` is '-m' until Python has found the module to run.
    """
    if sys.argv[:1] != ["-m"]:
        return False
    flags = [(a, b) for a, b in pairwise((*sys.orig_argv, "")) if a.startswith("-") and not a.startswith("--")]
    return any((a.endswith("m") and b == "fastconv") or a.endswith("mfastconv") for a, b in flags)


def restore() -> None:
    """Restore Python's own handler, which raises KeyboardInterrupt on Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
