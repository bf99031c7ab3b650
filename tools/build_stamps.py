"""Decide which compiled modules are current.

It compares file contents, not dates, because a build in an isolated environment makes every file of Cython new, and
with it every generated C file.

The digest of a module covers its settings and all sources that it includes, directly or indirectly. A successful build
records this digest and the digest of the library that it made. The module is current while both are unchanged.

    python tools/build_stamps.py pool.h runs.pxd      # prints the modules that read any of these files
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "fastconv._ext"

#: Statements that name other files of the folder. `cimport` names a .pxd file by its module name; the others name the
#: file itself.
_FILES = re.compile(r'^\s*(?:#\s*include|#\s*define\s+FC_TEMPLATE|cdef\s+extern\s+from|include)\s+"([^"]+)"', re.M)
_CIMPORTS = re.compile(
    rf"^\s*(?:from\s+{re.escape(PACKAGE)}\.(\w+)\s+cimport\b|cimport\s+{re.escape(PACKAGE)}\.(\w+))", re.M
)
_SIBLINGS = re.compile(rf"^\s*from\s+(?:{re.escape(PACKAGE)}|\.)\s+cimport\s+\(?([\w\s,]+)", re.M)


def modules(folder: Path) -> list[str]:
    """The names of the modules in a folder; each .pyx file is one."""
    return sorted(path.stem for path in folder.glob("*.pyx"))


def sources(folder: Path, module: str) -> list[Path]:
    """Every file of `folder` that a module is compiled from."""
    found: set[Path] = set()
    waiting = [folder / f"{module}.pyx", folder / f"{module}.pxd"]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        text = path.read_text(encoding="utf-8")
        waiting += [folder / name for name in _FILES.findall(text)]
        waiting += [folder / f"{first or second}.pxd" for first, second in _CIMPORTS.findall(text)]
        for names in _SIBLINGS.findall(text):
            waiting += [folder / f"{name}.pxd" for name in re.findall(r"\w+", names)]
    return sorted(found)


def digest(folder: Path, module: str, settings: object) -> str:
    """A hash of everything that determines a module: the names and contents of its sources, and `settings` (JSON)."""
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sources(folder, module):
        whole.update(f"\n{path.name} {_of_file(path)}".encode())
    return whole.hexdigest()


def is_current(stamp: Path, library: Path, of_sources: str) -> bool:
    """Whether the last build of these sources made `library`."""
    try:
        recorded = json.loads(stamp.read_text(encoding="utf-8"))
        return recorded == {"sources": of_sources, "library": _of_file(library)}
    except (OSError, ValueError):
        return False


def record(stamp: Path, library: Path, of_sources: str) -> None:
    """Record that `library` was built from sources with this digest."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"sources": of_sources, "library": _of_file(library)}), encoding="utf-8")


def stale(builds: Iterable[tuple[str, Path, Path, str]]) -> list[str]:
    """The names of the modules to compile. Each build is a tuple (name, stamp, library, digest of the sources)."""
    return [name for name, stamp, library, of_sources in builds if not is_current(stamp, library, of_sources)]


def _of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def readers(folder: Path, names: Iterable[str]) -> list[str]:
    """The modules that are compiled from any of the files with these names."""
    wanted = set(names)
    return [name for name in modules(folder) if wanted & {path.name for path in sources(folder, name)}]


if __name__ == "__main__":
    print(*readers(Path(__file__).resolve().parents[1] / "fastconv" / "_ext", map(os.path.basename, sys.argv[1:])))
