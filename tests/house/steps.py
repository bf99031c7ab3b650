"""The steps of recipes in the documentation, which tests follow in a copy of the tree.

A step is "New file `path`", "In `path`, after `anchor`" (both with a block of code), "In `path`, `old` becomes `new`", or
"In `path`, `row`" for places that have a row for each instruction set or dtype.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from sources import TREE


@dataclass(frozen=True)
class Step:
    """One numbered step of a recipe."""

    text: str

    def match(self, pattern):
        return re.match(pattern, self.text)

    def apply(self, tree):
        if new := self.match(r"New file `([^`]+)`"):
            path = tree / new[1]
            assert not path.exists()
            like = self.match(r"New file `[^`]+` with the classes `(\w+)` and `(\w+)` of `([^`]+)`")
            path.write_text(module_of(TREE / like[3], like.groups()[:2]) if like else self.code())
            return
        if after := self.match(r"In `([^`]+)`, after `(.+?)`:\n"):
            path, anchor, added = tree / after[1], after[2], self.code()
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            (at,) = (i for i, line in enumerate(lines) if anchor in line)
            path.write_text("".join([*lines[: at + 1], added, *lines[at + 1 :]]), encoding="utf-8")
            return
        path, old, new = self.match(r"In `([^`]+)`, `([^`]+)` becomes `([^`]+)`").groups()
        text = (tree / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {old} {text.count(old)} times"
        (tree / path).write_text(text.replace(old, new), encoding="utf-8")

    def code(self):
        """The code of its block, without the columns by which a list indents it."""
        ((indent, block),) = re.findall(r"^( {3,4})```\w*\n(.*?)^\1```", self.text, re.M | re.S)
        return re.sub(rf"^{indent}", "", block, flags=re.M)

    def place(self):
        """The path, which may be a pattern, and the text of a row."""
        return self.match(r"In `([^`]+)`, `([^`]+)`").groups()


def recipe(title, page="CONTRIBUTING.md"):
    """The steps below a heading of a page."""
    text = (TREE / page).read_text(encoding="utf-8")
    (section,) = re.findall(rf"^###? {title}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    numbers_and_texts = re.split(r"^(\d+)\. ", section, flags=re.M)[1:]
    steps = dict(zip(map(int, numbers_and_texts[::2]), numbers_and_texts[1::2], strict=True))
    assert steps and list(steps) == list(range(1, len(steps) + 1))
    return [Step(text) for text in steps.values()]


def module_of(path, classes):
    """The source of a module with these classes of another, and the imports of that one."""
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    kept = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    kept = [
        n for n in kept if not {"cases", "conftest", "pytest", "fastconv"} & {getattr(n, "module", n.names[0].name)}
    ]
    kept = [n for n in kept if "choose" not in ast.unparse(n)]
    kept += [node for node in body if isinstance(node, ast.ClassDef) and node.name in classes]
    assert {node.name for node in kept if isinstance(node, ast.ClassDef)} == set(classes)
    return "\n\n\n".join(ast.get_source_segment(text, node) for node in kept) + "\n"
