"""The encoding of the standard output."""

from __future__ import annotations

import sys


def replace_missing_characters() -> None:
    """Let the standard output print a question mark for each character that its encoding lacks.

    For example, `rich` shortens text for narrow terminals by an ellipsis, which ASCII lacks.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
