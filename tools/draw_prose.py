"""Print randomly drawn comments, docstrings and messages, to judge how they read.

    python tools/draw_prose.py --seed 1
    python tools/draw_prose.py --count 20 --seed 2 fastconv/_ext docs

A reader who knows NumPy and oneDNN, but not this project, marks the pieces that have to be read twice. The same seed
draws the same pieces from the same sources.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("fastconv", "docs", "README.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".pyx", ".pxd", ".h", ".c", ".md"}
#: Shorter pieces need no judgement.
LEAST_WORDS = 5

#: (line, kind, text)
Piece = tuple[int, str, str]


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=SOURCES, help="files and folders to draw from")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pieces = [(path, *piece) for path in files(options.paths) for piece in pieces_of(path)]
    drawn = random.Random(options.seed).sample(pieces, min(options.count, len(pieces)))
    print(f"{len(drawn)} of {len(pieces)} pieces, seed {options.seed}\n")
    for number, (path, line, kind, text) in enumerate(drawn, 1):
        print(f"{number}. {path.relative_to(ROOT)}:{line} ({kind})")
        print(textwrap.indent(text, "    "), end="\n\n")


def files(paths: list[str]) -> Iterator[Path]:
    """The files with prose at or below `paths`, in order."""
    for each in paths:
        path = (ROOT / each).resolve()
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (p for p in found if p.suffix in SUFFIXES and not is_generated(p))


def is_generated(path: Path) -> bool:
    """Whether Cython generated the file."""
    return path.suffix == ".c" and path.with_suffix(".pyx").exists()


def pieces_of(path: Path) -> Iterator[Piece]:
    """The pieces of prose of one file, without the very short ones."""
    text = path.read_text(encoding="utf-8")
    find = {".py": of_python, ".pyx": of_cython, ".pxd": of_cython, ".md": of_markdown}.get(path.suffix, of_c)
    for line, kind, prose in find(text):
        if len(re.findall(r"[A-Za-z]{2,}", prose)) >= LEAST_WORDS:
            yield line, kind, prose


def of_python(text: str) -> Iterator[Piece]:
    """Comments, the paragraphs of docstrings, and messages of exceptions and warnings."""
    comments = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|ruff)", token.string)
    ]
    yield from joined(comments)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (doc := ast.get_docstring(node)):
            yield from paragraphs(node.body[0].lineno, "docstring", doc)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from messages(node.exc)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            yield from messages(node)


def messages(call: ast.Call) -> Iterator[Piece]:
    """The first argument of a call, as source text."""
    if call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
        yield call.lineno, "message", ast.unparse(call.args[0])


def of_cython(text: str) -> Iterator[Piece]:
    """Comments and the paragraphs of docstrings."""
    yield from joined(
        [
            (number, match[0])
            for number, line in enumerate(text.splitlines(), 1)
            if (match := re.search(r"#(?!: )?.*$", re.sub(r'"[^"]*"', lambda m: "_" * len(m[0]), line)))
        ]
    )
    for match in re.finditer(r'"""(.*?)"""', text, re.S):
        yield from paragraphs(text.count("\n", 0, match.start()) + 1, "docstring", match[1])


def of_c(text: str) -> Iterator[Piece]:
    """Comments."""
    for match in re.finditer(r"/\*(.*?)\*/", text, re.S):
        prose = "\n".join(re.sub(r"^\s*\* ?", "", line) for line in match[1].splitlines())
        yield text.count("\n", 0, match.start()) + 1, "comment", prose.strip()


def of_markdown(text: str) -> Iterator[Piece]:
    """Paragraphs and items of lists; no code, no tables, no headings."""
    plain = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M)
    for line, kind, prose in paragraphs(1, "docs", plain):
        if not prose.startswith(("|", "#", "<", "!")):
            yield line, kind, prose


def joined(comments: list[tuple[int, str]]) -> Iterator[Piece]:
    """Comments on consecutive lines, joined into one piece."""
    begin, lines = 0, []
    for number, comment in [*comments, (-1, "")]:
        if lines and number != begin + len(lines):
            yield begin, "comment", "\n".join(lines)
            lines = []
        begin = number if not lines else begin
        lines.append(re.sub(r"^#:? ?", "", comment))


def paragraphs(line: int, kind: str, text: str) -> Iterator[Piece]:
    """The paragraphs of a text that begins at `line`, without headings of sections and without examples."""
    at = 0
    for match in re.finditer(r"\S.*?(?=\n\s*\n|\Z)", text, re.S):
        prose, at = match[0].rstrip(), text.count("\n", 0, match.start())
        if not re.match(r">>>|\w[\w ]*\n\s*-{3,}", prose):
            yield line + at, kind, textwrap.dedent(prose)


if __name__ == "__main__":
    main()
