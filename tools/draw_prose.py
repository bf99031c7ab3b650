"""Print randomly drawn comments, docstrings and messages, to judge how they read.

    python tools/draw_prose.py --seed 1
    python tools/draw_prose.py --count 20 --seed 2 fastconv/_ext docs

A reader who knows NumPy and oneDNN, but not this project, marks the pieces that have to be read twice. Under each piece
is the line of code that it belongs to, because a reader of the source sees this line, too. The same seed draws the same
pieces from the same sources.
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
#: The largest number of characters of a line of code that is printed.
LONGEST_CODE = 100

#: (line, kind, text, code); `code` is the line of code that the text belongs to, or "" if there is none.
Piece = tuple[int, str, str, str]


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
    for number, (path, line, kind, text, code) in enumerate(drawn, 1):
        print(f"{number}. {path.relative_to(ROOT)}:{line} ({kind})")
        print(textwrap.indent(text, "    "))
        print(f"    | {shortened(code)}\n" if code else "")


def shortened(code: str) -> str:
    """Return a line of code without needless spaces, cut at `LONGEST_CODE` characters."""
    code = " ".join(code.split())
    return code if len(code) <= LONGEST_CODE else code[: LONGEST_CODE - 3] + "..."


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
    for line, kind, prose, code in find(text):
        if len(re.findall(r"[A-Za-z]{2,}", prose)) >= LEAST_WORDS:
            yield line, kind, prose, code


def of_python(text: str) -> Iterator[Piece]:
    """Comments, the paragraphs of docstrings, and messages of exceptions and warnings."""
    lines = text.splitlines()
    comments = [
        (token.start[0], token.start[1], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|ruff)", token.string)
    ]
    yield from joined(comments, lines)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (doc := ast.get_docstring(node)):
            code = "" if isinstance(node, ast.Module) else lines[node.lineno - 1]
            yield from paragraphs(node.body[0].lineno, "docstring", doc, code)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from messages(node.exc, lines)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            yield from messages(node, lines)


def messages(call: ast.Call, lines: list[str]) -> Iterator[Piece]:
    """The first argument of a call, as source text."""
    if call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
        yield call.lineno, "message", ast.unparse(call.args[0]), lines[call.lineno - 1]


def of_cython(text: str) -> Iterator[Piece]:
    """Comments, the paragraphs of docstrings, and messages of exceptions."""
    lines = text.splitlines()
    docstrings = list(re.finditer(r'"""(.*?)"""', text, re.S))
    inside = {n for match in docstrings for n in range(line_at(text, match.start()), line_at(text, match.end()) + 1)}
    found = (
        (number, re.search(r"#(?!: )?.*$", re.sub(r'"[^"]*"', lambda m: "_" * len(m[0]), line)))
        for number, line in enumerate(lines, 1)
        if number not in inside
    )
    yield from joined(
        [(number, match.start(), lines[number - 1][match.start() :]) for number, match in found if match], lines
    )
    for match in docstrings:
        begin = line_at(text, match.start())
        yield from paragraphs(begin, "docstring", match[1], header_above(lines, begin))
    for match in re.finditer(r'\braise \w+\(\s*((?:f?"[^"\n]*"\s*)+)', text):
        begin = line_at(text, match.start())
        yield begin, "message", " ".join(match[1].split()), lines[begin - 1]


def of_c(text: str) -> Iterator[Piece]:
    """Comments."""
    lines = text.splitlines()
    for match in re.finditer(r"/\*(.*?)\*/", text, re.S):
        prose = "\n".join(re.sub(r"^\s*\* ?", "", line) for line in match[1].splitlines())
        begin = line_at(text, match.start())
        before = lines[begin - 1].partition("/*")[0]
        after = text[match.end() :].splitlines()
        yield begin, "comment", prose.strip(), before if before.strip() else next((a for a in after if a.strip()), "")


def line_at(text: str, index: int) -> int:
    """Return the number of the line with the character `index`, counted from 1."""
    return text.count("\n", 0, index) + 1


def header_above(lines: list[str], number: int) -> str:
    """Return the line above line `number` at which the definition begins, or "" for the docstring of a module."""
    for line in reversed(lines[: number - 1]):
        if re.match(r"\s*(def|class|cdef|cpdef)\b", line):
            return line
    return ""


def of_markdown(text: str) -> Iterator[Piece]:
    """Paragraphs and items of lists; no code, no tables, no headings."""
    plain = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M)
    for piece in paragraphs(1, "docs", plain, ""):
        if not piece[2].startswith(("|", "#", "<", "!")):
            yield piece


def joined(comments: list[tuple[int, int, str]], lines: list[str]) -> Iterator[Piece]:
    """Comments (line, column, text). Comments that fill consecutive lines are joined into one piece."""
    begin, found, code = 0, list[str](), ""
    for number, column, comment in [*comments, (-1, 0, "")]:
        before = lines[number - 1][:column] if number > 0 else ""
        if found and (number != begin + len(found) or code or before.strip()):
            yield begin, "comment", "\n".join(found), code or code_below(lines, begin + len(found))
            found = []
        begin, code = (number, before.strip()) if not found else (begin, code)
        found.append(re.sub(r"^#:? ?", "", comment))


def code_below(lines: list[str], number: int) -> str:
    """Return the first line with code from line `number` on, or ""."""
    return next((line for line in lines[number - 1 :] if line.strip() and not line.strip().startswith("#")), "")


def paragraphs(line: int, kind: str, text: str, code: str) -> Iterator[Piece]:
    """The paragraphs of a text that begins at `line`, without headings of sections and without examples."""
    at = 0
    for match in re.finditer(r"\S.*?(?=\n\s*\n|\Z)", text, re.S):
        prose, at = match[0].rstrip(), text.count("\n", 0, match.start())
        if not re.match(r">>>|\w[\w ]*\n\s*-{3,}", prose):
            yield line + at, kind, textwrap.dedent(prose), code


if __name__ == "__main__":
    main()
