"""README and the pages of docs/: links, pictures, length, and tables that are made from JSON."""

import importlib
import json
import re
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PAGES = sorted([*TREE.glob("*.md"), *(TREE / "docs").rglob("*.md")])
BENCHMARKS = TREE / "benchmarks"
#: README's links are absolute, so that they work on PyPI too.
OWN = re.compile(
    r"https://(?:github\.com/fastconv/fastconv/(?:blob|tree)|raw\.githubusercontent\.com/fastconv/fastconv)/main/"
)

pytestmark = pytest.mark.skipif(not (BENCHMARKS / "results").is_dir(), reason="needs the source tree")


def anchors(page):
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TREE).as_posix())
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        if OWN.match(file):
            target = TREE / OWN.sub("", file)
        elif "://" in file:
            continue
        else:
            target = page.parent / file if file else page
        assert target.exists(), f"{page.name} points to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} points to {link}, which has no such heading"


def test_readme_is_short_and_its_links_work_elsewhere():
    text = (TREE / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links and all("://" in link for link in links)


def test_every_page_is_reached_from_readme():
    reached, waiting = set(), [TREE / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            target = TREE / OWN.sub("", link) if OWN.match(link) else (page.parent / link).resolve()
            if target.suffix == ".md":
                waiting.append(target)
    assert set(PAGES) <= reached


@pytest.fixture
def script(monkeypatch):
    """A script of benchmarks/, or a module of its support, as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name):
        return importlib.import_module(name)

    return load


def test_tables_are_those_of_the_stored_runs(script):
    write = script("write_performance")
    for name in write.PAGES:
        text = (TREE / name).read_text(encoding="utf-8")
        same = write.written(text) == text
        assert same, f"{name} is not up to date: run python benchmarks/write_performance.py"
    page = (TREE / "docs" / "performance.md").read_text(encoding="utf-8")
    blocks = write.BLOCK.findall(page)
    assert len(blocks) > 10
    for _, name, content, _ in blocks:
        if not content.strip().startswith("No run"):
            assert all(word in content for word in ("CPU: ", "fastconv ", "commit ")), name


def test_a_run_without_a_commit_is_reported(script, monkeypatch, tmp_path, capsys):
    write = script("write_performance")
    (tmp_path / "fit_costs_GenuineIntel-6-avx2.json").write_text('{"commit": "0123456789ab"}', encoding="utf-8")
    (tmp_path / "sparse_vs_dense_growth.json").write_text('{"commit": null}', encoding="utf-8")
    monkeypatch.setattr(write, "RESULTS", tmp_path)
    monkeypatch.setattr(write, "PAGES", ())
    message = "sparse_vs_dense_growth.json names no commit; run python benchmarks/sparse_vs_dense.py"
    try:
        for required in (False, True):
            write.run.cache_clear()
            monkeypatch.setattr(write, "COMMIT_REQUIRED", required)
            monkeypatch.setattr(write, "no_commit", {})
            assert write.run("fit_costs_GenuineIntel-6-avx2") and not write.no_commit
            if required:
                with pytest.raises(ValueError, match=message):
                    write.run("sparse_vs_dense_growth")
            else:
                assert write.main(["--check"]) == 0 and not capsys.readouterr().out
                assert write.run("sparse_vs_dense_growth") == {"commit": None}
                assert write.main(["--check"]) == 1 and write.main([]) == 0
                assert capsys.readouterr().out.count(f"warning: 1 run without a commit:\n{message}\n") == 2
    finally:
        write.run.cache_clear()


def test_every_picture_of_the_stored_runs_is_there(script):
    pytest.importorskip("matplotlib")
    pictures = script("support.pictures")
    wanted = {"summary"}
    for path in (BENCHMARKS / "results").glob("*.json"):
        wanted |= set(pictures.figures(json.loads(path.read_text(encoding="utf-8")), path.stem))
    for suffix in ("svg", "png"):
        assert {path.stem for path in (BENCHMARKS / "results").glob(f"*.{suffix}")} == wanted


def test_pictures_are_drawn_from_json_alone(script, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    runs = [
        BENCHMARKS / "results" / f"{name}.json"
        for name in ("bench_transpose", "bench_memory", "fit_costs_GenuineIntel-6-avx2")
    ]
    assert script("draw_pictures").main(["--from", *map(str, runs), "--out", str(tmp_path)]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert (
        "bench_transpose.svg" in drawn and "bench_memory.png" in drawn and "fit_costs_GenuineIntel-6-avx2.png" in drawn
    )
    assert capsys.readouterr().out.count("written: ") == len(drawn)
    cpu = json.loads(runs[0].read_text(encoding="utf-8"))["machine"]["cpu"]
    assert cpu in (tmp_path / "bench_transpose.svg").read_text(encoding="utf-8")
