"""Ctrl-C while ``python -m fastconv`` is still importing: the process ends with 130, without a traceback.

Python imports a package before it runs its `__main__`, so that nothing there could catch this.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise


def _leave(*_: object) -> None:
    # Not SystemExit, which an import that is under way might catch.
    os._exit(130)


def _is_program() -> bool:
    """Whether Python was told to run this package; its argv[0] is '-m' until it has found what that is."""
    if sys.argv[:1] != ["-m"]:
        return False
    flags = [(a, b) for a, b in pairwise((*sys.orig_argv, "")) if a.startswith("-") and not a.startswith("--")]
    return any((a.endswith("m") and b == "fastconv") or a.endswith("mfastconv") for a, b in flags)


def restore() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
