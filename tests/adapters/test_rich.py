"""Tables by rich."""

import sys

import pytest

from fastconv.adapters import rich as _rich


def test_print_table(capsys, monkeypatch):
    pytest.importorskip("rich")
    assert _rich.is_installed()
    monkeypatch.setenv("COLUMNS", "60")
    _rich.print_table("rates", ("family", "rate"), iter([("fft", "9.5"), ("pool", "10.5")]), "a note", left=1)
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["rates"] and ["fft", "9.5"] in lines and ["pool", "10.5"] in lines and ["a", "note"] in lines


def test_without_rich(monkeypatch):
    """An entry of None makes `import rich` fail, as if it were not installed."""
    monkeypatch.setitem(sys.modules, "rich", None)
    assert not _rich.is_installed()
