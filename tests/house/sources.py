"""The sources for the tests of this folder: the imports of each module, and lines of code without prose."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import fastconv

ROOT = Path(fastconv.__file__).parent
TREE = ROOT.parent
#: Folders with handwritten sources.
FOLDERS = ("fastconv", "tests", "benchmarks", "examples", "tools", ".ci")
SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".h", ".c")


@functools.cache
def python_modules() -> list[Path]:
    """The Python modules of the package, demo and compat included."""
    return sorted(ROOT.rglob("*.py"))


@functools.cache
def module_names() -> set[str]:
    """The dotted names of all modules of the package."""
    return {name_of(path) for path in python_modules()}


def written() -> list[Path]:
    """All handwritten sources: of the package, the tests, the benchmarks and the tools."""
    found = [path for folder in FOLDERS for path in (TREE / folder).rglob("*") if path.suffix in SUFFIXES]
    found += TREE.glob("*.py")
    # Earlier versions put the C that Cython generates beside each .pyx file.
    return sorted(p for p in found if p.suffix != ".c" or not p.with_suffix(".pyx").is_file())


def name_of(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(TREE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, first_use: bool = True) -> Iterator[tuple[str, int]]:
    """The modules that a module imports, by dotted name, with the line of each import.

    Imports inside functions count only with `first_use`. Imports for type checkers never count. Neither makes a cycle.
    """

    def visit(node: ast.AST) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    # An imported name is a module if a module has that name. Compiled modules have no .py file; each
                    # is in a folder of fastconv._ext.
                    module = whole in module_names() or re.fullmatch(r"fastconv\._ext\.\w+", child.module)
                    yield (whole if module else child.module), child.lineno
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            elif first_use or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from visit(child)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")))


def package_of(name: str) -> str:
    """The package or module at the root that contains a dotted name; `__init__` is the root itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that can reach each other (Tarjan's algorithm), without sets of one node."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def docstrings(tree: ast.AST) -> set[int]:
    """The numbers of lines that belong to docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                assert first.end_lineno is not None
                lines.update(range(first.lineno, first.end_lineno + 1))
    return lines


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of code with their numbers: no blank line, comment, docstring, import or lone bracket."""
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    python = path.suffix in (".py", ".pyi")
    if python:
        tree = ast.parse(text)
        left_out = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    comment = r"#" if python or path.suffix in (".pyx", ".pxd") else r"/\*|\*|//"
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.rstrip("\\").strip()
        no_code = not re.search(r"\w", bare) or re.match(rf"{comment}|(from|import|cimport)\b|#include", bare)
        if number not in left_out and not no_code:
            found.append((number, bare))
    return found
