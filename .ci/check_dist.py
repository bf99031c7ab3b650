"""Check an sdist and a wheel: check_dist.py TREE DIST SECOND, where SECOND holds a second build of the same sdist."""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

tree, dist, second = (Path(argument) for argument in sys.argv[1:])
(sdist,), (wheel,) = dist.glob("fastconv-*.tar.gz"), dist.glob("fastconv-*-cp311-abi3-*.whl")
assert sdist.read_bytes() == (second / sdist.name).read_bytes(), "two sdists of one tree differ"

with tarfile.open(sdist) as archive:
    members = archive.getmembers()
    files = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0, 0, "", "", int(os.environ["SOURCE_DATE_EPOCH"]))
    }
tracked = subprocess.run(["git", "ls-files"], cwd=tree, capture_output=True, text=True, check=True).stdout.split()
lacking = [name for name in tracked if name not in files and name != ".gitignore" and not name.endswith(".gz")]
assert not lacking, f"the sdist lacks {lacking}"
assert not [name for name in files if name.endswith((".so", ".pyc"))]
# Links of README are absolute, so that they work on PyPI too: they name files of the main branch.
OWN = re.compile(
    r"https://(?:github\.com/fastconv/fastconv/(?:blob|tree)|raw\.githubusercontent\.com/fastconv/fastconv)/main/"
)
for page in [name for name in files if name.endswith(".md")]:
    # The sdist must contain every page, picture and folder that its pages link to.
    for link in re.findall(r"\]\(([^)#\s]+)", (tree / page).read_text(encoding="utf-8")):
        assert page != "README.md" or "://" in link, f"README.md points to {link}, which does not work on PyPI"
        target = OWN.sub("", link) if OWN.match(link) else os.path.normpath(Path(page).parent / link)
        there = target in files or any(name.startswith(f"{target}/") for name in files)
        assert ("://" in link and not OWN.match(link)) or there, f"{page} points to {link}, which is not in the sdist"
for name in re.findall(r"`([\w./]+/[\w.]+\.(?:json|py|md|png))`", (tree / "README.md").read_text(encoding="utf-8")):
    assert name in files or not (tree / name).exists(), f"README.md names {name}, which is not in the sdist"

compiled = tree / "fastconv" / "_ext"
modules = [path.relative_to(compiled).with_suffix("").as_posix() for path in compiled.rglob("*.pyx")]
with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".c", ".h"))], "the wheel holds sources"
    for module in modules:
        assert f"fastconv/_ext/{module}.abi3.so" in names, f"the wheel has no {module}"
    for path in (tree / "fastconv").rglob("*"):
        if path.suffix in (".py", ".pyi", ".json", ".typed"):
            assert path.relative_to(tree).as_posix() in names, f"the wheel has no {path}"
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            library = archive.extract(f"fastconv/_ext/{module}.abi3.so", folder)
            shown = subprocess.run(["readelf", "-Wdl", library], capture_output=True, text=True, check=True).stdout
            assert "GNU_RELRO" in shown and re.search(r"\bBIND_NOW\b|\bNOW\b", shown), f"{module} has no full RELRO"
            sections = subprocess.run(["readelf", "-WS", library], capture_output=True, text=True, check=True).stdout
            assert " .symtab " not in sections and ".debug_" not in sections, f"{module} is not stripped"
print(f"{sdist.name}: {len(files)} files, twice the same bytes; {wheel.name}: {len(modules)} modules")
