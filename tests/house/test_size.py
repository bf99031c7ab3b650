"""No file is too long to be read in one go, and no code is written twice."""

import pytest
import sources
from sources import TREE

#: The most lines of a source file.
MOST_LINES = 500
#: The number of equal lines of code that two places may not share.
SHARED_LINES = 12

pytestmark = pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")


def test_no_source_is_too_long():
    lines = {
        path.relative_to(TREE).as_posix(): path.read_text(encoding="utf-8").count("\n") for path in sources.written()
    }
    assert {path.suffix for path in sources.written()} == set(sources.SUFFIXES)
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def repeats(files, least):
    """The first two places of each run of at least `least` equal lines of code, from (name, lines) of each file."""
    seen, found = {}, []
    for name, lines in files:
        after = -1
        for i in range(len(lines) - least + 1):
            run = tuple(text for _, text in lines[i : i + least])
            before = seen.setdefault(run, (name, lines[i][0], i))
            apart = before[0] != name or before[2] + least <= i
            if before != (name, lines[i][0], i) and apart and i > after:
                found.append(f"{name}:{lines[i][0]} repeats {before[0]}:{before[1]}")
                after = i + least
    return found


def test_nothing_is_written_twice():
    # Stubs repeat signatures.
    written = [path for path in sources.written() if path.suffix != ".pyi"]
    files = [(path.relative_to(TREE).as_posix(), sources.code_lines(path)) for path in written]
    assert repeats(files, SHARED_LINES) == []


def test_repeats_are_found():
    lines = [(i, f"x{i}") for i in range(20)]
    assert repeats([("a", lines), ("b", lines[3:])], 12) == ["b:3 repeats a:3"]
    assert repeats([("a", lines + lines[:12])], 12) == ["a:0 repeats a:0"]
    assert repeats([("a", lines), ("b", lines[:11])], 12) == []
    assert repeats([("a", [(i, "same") for i in range(15)])], 12) == []


def test_prose_is_no_code(tmp_path):
    source = tmp_path / "source.py"
    source.write_text(
        '"""A\n\nb = 1\n"""\nimport os\n\n# c\n\n\ndef f():\n    """D."""\n    return (\n        1\n    )\n'
    )
    assert [text for _, text in sources.code_lines(source)] == ["def f():", "return (", "1"]
