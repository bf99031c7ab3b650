"""Decide which objects and modules of a build are current.

File contents are compared, not dates, because a build in an isolated environment makes every file of Cython new, and
with it every generated C file.

The digest of an object covers its settings and all sources that it includes, directly or indirectly. A successful build
records this digest and the digest of the file that it made. The file is current while both are unchanged.

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

#: Statements by which a file of the folder names others that it needs. `cimport` names a .pxd, the others name a file.
_FILES = re.compile(r'^\s*(?:#\s*include|#\s*define\s+FC_TEMPLATE|cdef\s+extern\s+from|include)\s+"([^"]+)"', re.M)
_CIMPORTS = re.compile(rf"^\s*(?:from|cimport)\s+{re.escape(PACKAGE)}\.(\w+)\.(\w+)", re.M)
#: How the source of a family of kernels is named: norm_kernels.c has the kernels that norm.h declares.
_KERNELS = "_kernels.c"
#: Calls of a function that finds the kernels of a family for a dtype and an instruction set, such as fc_norm_for. Its
#: definition by FC_KERNELS or FC_BASELINE_KERNELS (isa.h) is no call.
_FINDERS = re.compile(r"\bfc_(\w+)_for\(")
#: A family whose file defines this is compiled for the first instruction set only.
_BASELINE_ONLY = re.compile(r"^#define FC_BASELINE_ONLY\b", re.M)


def modules(folder: Path) -> list[str]:
    """The names of the modules in the sub-folders of a folder, such as "pool.rows"; each .pyx file is one."""
    return sorted(f"{path.parent.name}.{path.stem}" for path in folder.glob("*/*.pyx"))


def module_source(folder: Path, module: str) -> Path:
    """The .pyx file of a module."""
    return folder / (module.replace(".", "/") + ".pyx")


def families(folder: Path) -> list[str]:
    """The names of the families of kernels in the sub-folders of a folder."""
    return sorted(path.name.removesuffix(_KERNELS) for path in folder.glob("*/*" + _KERNELS))


def versions(folder: Path, family: str) -> list[tuple[str, str]]:
    """The pairs of instruction set and dtype that a family is compiled for, from foreach.h and foreach_dtype.h."""
    isas, dtypes = (
        re.findall(rf"^#define {macro} (\w+)$", (folder / name).read_text(encoding="utf-8"), re.M)
        for macro, name in (("FC_ISA", "simd/foreach.h"), ("FC_DTYPE", "simd/foreach_dtype.h"))
    )
    if _BASELINE_ONLY.search(kernel_source(folder, family).read_text(encoding="utf-8")):
        isas = isas[:1]
    return [(isa, dtype) for isa in isas for dtype in dtypes]


def kernel_source(folder: Path, family: str) -> Path:
    """The C file that an object of a family is compiled from."""
    (source,) = folder.glob(f"*/{family}{_KERNELS}")
    return source


def module_sources(folder: Path, module: str) -> list[Path]:
    """Every file of `folder` that the object of a module is compiled from."""
    source = module_source(folder, module)
    return _followed(folder, [source, source.with_suffix(".pxd")])


def kernel_sources(folder: Path, family: str) -> list[Path]:
    """Every file of `folder` that the objects of a family are compiled from."""
    return _followed(folder, [kernel_source(folder, family)])


def linked_families(folder: Path, module: str) -> list[str]:
    """The families that a module is linked with, because its sources call the functions that find their kernels.

    A module that gets its kernels from a function of another module does not call these functions.
    """
    texts = [path.read_text(encoding="utf-8") for path in module_sources(folder, module)]
    found = {name for text in texts for name in _FINDERS.findall(text)}
    return sorted(found & set(families(folder)))


def readers(folder: Path, names: Iterable[str]) -> list[str]:
    """The modules that are compiled from, or linked with objects of, any of the files with these names."""
    wanted = set(names)

    def read(module: str) -> set[str]:
        linked = [kernel_sources(folder, family) for family in linked_families(folder, module)]
        return {path.name for sources in (module_sources(folder, module), *linked) for path in sources}

    return [module for module in modules(folder) if wanted & read(module)]


def _followed(folder: Path, waiting: list[Path]) -> list[Path]:
    """All files that `waiting` include, directly or indirectly, and `waiting`."""
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        text = path.read_text(encoding="utf-8")
        waiting += [folder / name for name in _FILES.findall(text)]
        waiting += [folder / package / f"{name}.pxd" for package, name in _CIMPORTS.findall(text)]
    return sorted(found)


def digest(sources: list[Path], settings: object) -> str:
    """A hash of the names and contents of `sources`, and of `settings` (JSON)."""
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sources:
        whole.update(f"\n{path.name} {_of_file(path)}".encode())
    return whole.hexdigest()


def is_current(stamp: Path, made: Path, of_sources: str) -> bool:
    """Whether the last build of these sources made the file `made`."""
    try:
        recorded = json.loads(stamp.read_text(encoding="utf-8"))
        return recorded == {"sources": of_sources, "made": _of_file(made)}
    except (OSError, ValueError):
        return False


def record(stamp: Path, made: Path, of_sources: str) -> None:
    """Record that `made` was built from sources with this digest."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"sources": of_sources, "made": _of_file(made)}), encoding="utf-8")


def _of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(*readers(Path(__file__).resolve().parents[1] / "fastconv" / "_ext", map(os.path.basename, sys.argv[1:])))
