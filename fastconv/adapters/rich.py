"""Tables for terminals by `rich`. Without `rich`, callers print plain text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence

from fastconv.runtime.terminal import replace_missing_characters


def is_installed() -> bool:
    """Return whether `rich` can be imported."""
    return importlib.util.find_spec("rich") is not None


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], note: str, left: int) -> None:
    """Print a table. The first `left` columns are aligned at the left, and all others at the right.

    `rows` may be computed one by one; a terminal then shows the number of rows that are done.
    """
    from rich.console import Console
    from rich.table import Table

    replace_missing_characters()
    console = Console()
    table = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left else "right", no_wrap=number != 1)
    with console.status("measuring ...") as status:
        for number, row in enumerate(rows, 1):
            table.add_row(*row)
            status.update(f"measured {number} ...")
    console.print(table)
