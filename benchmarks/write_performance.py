"""Write the tables of docs/performance.md, and the ratios in README.md, from the JSON files in benchmarks/results.

Run as ``python benchmarks/write_performance.py [--check]``. A block of a page begins with ``<!-- table: NAME -->`` and
ends with ``<!-- end -->``; the function of that name makes the text in between. With ``--check`` nothing is written,
and the exit status is 1 if a page differs from what would be written, or if a JSON file names no commit.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from support.choice_pictures import LONGER, MUCH, best_of
from support.picture_style import Data, instruction_set, short
from support.pictures import BOUNDS, against, figures, pairs, peer_of, slug, summary_rows, values

TREE = Path(__file__).parent.parent
RESULTS = TREE / "benchmarks" / "results"
PAGES = ("README.md", "docs/performance.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MIB = 2**20
#: Whether a JSON file without a commit raises an error. If False, such files are listed, and ``--check`` fails.
COMMIT_REQUIRED = False
#: For each JSON file without a commit, the text that names the file and the command to run.
no_commit: dict[str, str] = {}


@cache
def run(name: str) -> Data | None:
    """The JSON of a run, or None if no run is stored."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    if not data.get("commit"):
        no_commit[name] = f"{path.name} names no commit; run python benchmarks/{script_of(name)}"
        if COMMIT_REQUIRED:
            raise ValueError(no_commit[name])
    return data


def script_of(name: str) -> str:
    """The file name of the script that makes the run NAME: the longest that NAME begins with."""
    stems = (path.stem for path in (TREE / "benchmarks").glob("*.py"))
    return max((stem for stem in stems if name.startswith(stem)), key=len) + ".py"


def counted(number: int, noun: str) -> str:
    """'2 threads'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def source(data: Data, name: str) -> str:
    """The CPU, the versions, the date and the commit of a run."""
    machine, versions = data["machine"], data["versions"]
    isa = machine.get("isa")
    cpu = f"{machine['cpu']} ({instruction_set(isa) if isa else 'instruction set not recorded'})"
    names = {
        "fastconv": "fastconv",
        "numpy": "NumPy",
        "scipy": "SciPy",
        "torch": "PyTorch",
        "onnxruntime": "ONNX Runtime",
        "cv2": "OpenCV",
        "python": "Python",
    }
    given = [f"{word} {versions[key]}" for key, word in names.items() if versions.get(key)]
    given += [f"{word} {version}" for word, version in data.get("optional", {}).items() if version]
    when = datetime.fromisoformat(data["date"]).strftime("%Y-%m-%d")
    commit = data.get("commit") or "not recorded"
    quick = " A quick run." if data["quick"] else ""
    seed = f" Seed {data['seed']}." if "seed" in data else ""
    parts = [
        f"CPU: {cpu}, {counted(data['threads'], 'thread')} on {counted(machine['cpus'], 'CPU')}.",
        f"{', '.join(given)}.",
    ]
    parts.append(f"{when}, commit {commit}.{quick}{seed}")
    return f"*{' '.join(parts)}* [{name}.json](../benchmarks/results/{name}.json)"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; columns of numbers are aligned to the right."""
    rows = list(rows)
    columns = zip(*rows, strict=True)
    numbers = [all(cell[0].isdigit() or cell in ("-", "never") for cell in column) for column in columns]
    lines = [headings, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(file: str, text: str) -> str:
    """A link to a picture of benchmarks/results in SVG."""
    return f"![{text}](../benchmarks/results/{file}.svg)"


def block(name: str, *parts: str) -> str:
    """The text of a block: its parts, and the source of its numbers."""
    data = run(name)
    assert data is not None
    return "\n\n".join([source(data, name), *parts])


# --------------------------------------------------------------------------------------------------------- the tables


def ratios(name: str) -> str:
    """For each panel and peer: the geometric mean, the least ratio, and how often fastconv is faster."""
    data = run(name)
    if data is None:
        return "No run of this benchmark is stored in `benchmarks/results`."
    left_out = BOUNDS | set(data.get("bounds", ()))
    rows = []
    for panel, ratio in pairs(data, bounds=True):
        cases = values(data, panel, ratio)
        if not cases or peer_of(ratio) == "FMA peak":
            continue
        found = [value for _, value in cases]
        least = min(cases, key=lambda case: case[1])
        bound = " (no peer)" if peer_of(ratio) in left_out else ""
        faster = f"{sum(value >= 1 for value in found)} of {len(found)}"
        mean = short(statistics.geometric_mean(found))
        rows.append([panel, against(ratio) + bound, mean, short(least[1]), least[0], faster])
    parts = [table(["panel", "against", "geometric mean", "least", "in case", "faster in"], rows)]
    parts.append(picture(name, "Ratios by panel and peer, with a dot for each case"))
    bars = [file for file in figures(data, name) if file != name]
    if bars:
        links = (f"[{words(file, name)}](../benchmarks/results/{file}.svg)" for file in bars)
        parts.append(f"Case by case: {', '.join(links)}.")
    return block(name, *parts)


def words(file: str, name: str) -> str:
    """What a picture of run NAME shows, derived from the picture's file name."""
    data = run(name)
    assert data is not None
    for panel, ratio in pairs(data):
        if file == f"{name}_{slug(panel)}_{slug(peer_of(ratio))}":
            return f"{panel} against {peer_of(ratio)}"
    return file.removeprefix(f"{name}_").replace("_", " ")


def peak() -> str:
    """The fraction of the multiply-add peak that each layer reaches."""
    data = run("bench_layers")
    assert data is not None
    rows = []
    for panel in dict.fromkeys(row["panel"] for row in data["results"]):
        cases = values(data, panel, "FMA peak / fastconv")
        found = [value for _, value in cases]
        most = max(cases, key=lambda case: case[1])
        rows.append([panel, percent(statistics.median(found)), percent(most[1]), most[0]])
    for panel, ratio in pairs(data, bounds=True):
        if ratio == "FMA peak / fastconv implicit":
            (case, value), *_ = values(data, panel, ratio)
            rows.append([f"{panel}, `implicit` alone", percent(value), percent(value), case])
    return block("bench_layers", table(["panel", "median", "largest", "in case"], rows))


def percent(value: float) -> str:
    """0.876 as '87 %', truncated and not rounded."""
    return f"{int(100 * value)} %"


def memory() -> str:
    """The largest memory beyond input and output, by op and contender."""
    data = run("bench_memory")
    assert data is not None
    contenders = {"auto": "fastconv", "PyTorch": "PyTorch", "ONNX Runtime": "ONNX Runtime"}
    rows = []
    for op, batch in dict.fromkeys((cell["op"], cell["batch"]) for cell in data["results"]):
        cells = [cell for cell in data["results"] if (cell["op"], cell["batch"]) == (op, batch)]
        line = [f"`{op}`", str(batch), str(len({cell["layer"] for cell in cells}))]
        for name in contenders:
            found = [c["extra_bytes"] / MIB for c in cells if c["contender"] == name and c["extra_bytes"] is not None]
            line.append(f"{statistics.median(found):.1f} / {max(found):.1f}" if found else "-")
        rows.append(line)
    headings = ["op", "batch", "layers", *(f"{word}: median / largest" for word in contenders.values())]
    shown = picture("bench_memory", "Peak memory beyond input and output, by layer")
    return block("bench_memory", "All numbers in MiB:", table(headings, rows), shown)


def scaling() -> str:
    """The speed-up by more threads, and the pictures of growth."""
    data = run("bench_scaling")
    assert data is not None
    ops = list(dict.fromkeys(entry["op"] for entry in data["summary"]))
    names = list(dict.fromkeys(entry["contender"] for entry in data["summary"]))
    speedups = {(entry["op"], entry["contender"]): entry["speedup"] for entry in data["summary"]}
    rows = [[op, *(short(speedups[op, name]) for name in names)] for op in ops]
    threads = data["threads"]
    return block(
        "bench_scaling",
        f"Time with one thread divided by time with {threads} threads, geometric mean:",
        table(["op", *names], rows),
        picture("bench_scaling_time", "Time as batch, channels and image size double"),
        picture("bench_scaling_memory", "Memory as batch, channels and image size double"),
    )


def regret_cells(cases: Sequence[Data]) -> list[str]:
    """The number of cases, their mean and largest regret, and how many of the longer ones have much regret."""
    longer = [case for case in cases if best_of(case) >= LONGER]
    mean = statistics.geometric_mean(case["regret"] for case in cases)
    bad, worst = sum(case["regret"] > MUCH for case in longer), max(case["regret"] for case in cases)
    return [str(len(cases)), f"{mean:.3f}", f"{worst:.2f}", f"{bad} of {len(longer)}"]


def choice() -> str:
    """The regret of 'auto' in every stored run, and its families in the newest run of each kind of CPU."""
    runs = {path.stem: run(path.stem) or {} for path in RESULTS.glob("bench_choice_*.json")}
    headings = ["cases", "mean regret", "largest", f"over {MUCH:g} among calls of 100 µs or more"]
    rows, newest = [], dict[tuple[str, str], str]()
    for name, data in sorted(runs.items(), key=lambda item: item[1]["date"]):
        kind = data.get("kind") or f"{data['machine']['cpu']}, {instruction_set(data['machine']['isa'])}"
        rates = data.get("rates_of") or kind
        newest[kind, rates] = name
        file = f"[{data['seed']}](../benchmarks/results/{name}.json)"
        when = datetime.fromisoformat(data["date"]).strftime("%Y-%m-%d")
        own = "its own" if rates == kind else rates
        rows.append([file, kind, own, when, data.get("commit") or "not recorded", *regret_cells(data["cases"])])
    parts = [table(["seed", "kind of CPU", "rates", "date", "commit", *headings], rows)]
    for (kind, rates), name in newest.items():
        if rates != kind:
            continue
        cases = runs[name]["cases"]
        families = list(dict.fromkeys(case["case"]["family"] for case in cases))
        some = [[family, *regret_cells([c for c in cases if c["case"]["family"] == family])] for family in families]
        shown = picture(name, "The regret of each case, by family")
        parts.append(block(name, table(["family", *headings], [*some, ["all", *regret_cells(cases)]]), shown))
    return "\n\n".join(parts)


def fit() -> str:
    """The regret before and after rates were fitted."""
    parts = []
    for path in sorted(RESULTS.glob("fit_costs_*.json")):
        data = run(path.stem)
        assert data is not None
        rows = []
        for when, families in data["summary"].items():
            every = families["all"]
            numbers = [f"{every['geomean']:.2f}", f"{every['worst']:.2f}", f"{every['much']} of {every['longer']}"]
            rows.append([when, str(every["cases"]), *numbers])
        headings = ["rates", "cases", "mean regret", "largest", f"over {MUCH:g} among calls of 100 µs or more"]
        parts.append(block(path.stem, table(headings, rows), picture(path.stem, "Regret before and after, by family")))
    return "\n\n".join(parts)


def ablation() -> str:
    """What each path buys, in the stored runs."""
    parts = []
    for path in sorted(RESULTS.glob("ablation_*.json")):
        data = run(path.stem)
        assert data is not None
        rows = []
        for found in data["paths"]:
            means = (f"{found[part]:.3f}" for part in ("layers", "families"))
            changed, verdict = str(len(found["timed"])), "pays" if found["pays"] else "buys nothing"
            rows.append([found["path"], str(found["cases"]), changed, *means, f"{found['largest']:.2f}", verdict])
        headings = ["path", "cases", "with another plan", "mean of layers", "mean of families", "largest", "verdict"]
        parts.append(block(path.stem, table(headings, rows), picture(path.stem, "What each path buys")))
    return "\n\n".join(parts) or "No run of this benchmark is stored in `benchmarks/results`."


def crossovers() -> str:
    """The share of zeros from which 'sparse' is faster, and its largest advantage."""
    data = run("sparse_vs_dense")
    assert data is not None
    rows = []
    for case in data["results"]:
        pattern = {"random": "single weights"}.get(case["pattern"], f"whole {case['pattern']}")
        found = [case["crossover"].get(name) for name in ("implicit", "PyTorch", "auto")]
        cells = ["never" if where is None else f"{100 * where:.0f} %" for where in found]
        rows.append([case["case"], str(case["batch"]), pattern, *cells, case["auto_takes"]])
    headings = [
        "layer",
        "batch",
        "pruned",
        "faster than `implicit` from",
        "than PyTorch",
        "than `auto`",
        "`auto` takes",
    ]
    return block(
        "sparse_vs_dense",
        table(headings, rows),
        picture("sparse_vs_dense", "The share of zeros from which sparse is faster"),
        picture("sparse_vs_dense_curves", "Time of a layer against the zeros among its weights"),
    )


def sparse_summary() -> str:
    """The summary of the run on sparse weights and matrices."""
    data = run("sparse_vs_dense")
    assert data is not None
    rows = [[entry["what"], short(entry["value"]), entry["where"]] for entry in data["summary"]]
    return block("sparse_vs_dense", table(["what", "value", "where"], rows))


def growth() -> str:
    """The pictures of a layer and its matrix as they grow."""
    data = run("sparse_vs_dense_growth")
    assert data is not None
    rows = []
    for point in data["results"]:
        seconds, sizes = point["median_seconds"], point["bytes"]
        times = (f"{1e3 * seconds[name]:.3g}" for name in ("auto", "toeplitz", "CSR by SciPy"))
        amounts = (f"{sizes[name] / MIB:.3g}" for name in ("input and output", "CSR matrix"))
        rows.append([f"{point['axis']} {point['value']}", *times, *amounts])
    headings = ["layer", "`auto`, ms", "`toeplitz`, ms", "finished CSR, ms"]
    return block(
        "sparse_vs_dense_growth",
        table([*headings, "input and output, MiB", "CSR matrix, MiB"], rows),
        picture("sparse_vs_dense_growth_time", "Time as image and batch grow"),
        picture("sparse_vs_dense_growth_memory", "Memory as image and batch grow"),
    )


def summary() -> str:
    """The sentence of README with the two main ratios."""
    data = run("bench_layers")
    assert data is not None
    found = {op: [value for row in rows.values() for value in row] for op, rows in summary_rows(data).items()}
    forward, backward = (short(statistics.geometric_mean(found[op])) for op in ("forward", "backward"))
    machine, torch = data["machine"], data["versions"]["torch"].partition("+")[0]
    when = datetime.fromisoformat(data["date"]).strftime("%d %B %Y").lstrip("0")
    return (
        f"PyTorch {torch} takes **{forward} times as long as fastconv** in the forward pass,\n"
        f"and **{backward} times as long** in the backward pass. These are geometric means over "
        f"{len(found['forward'])} cases in float32,\nwith {data['threads']} threads on {machine['cpu']} with "
        f"{instruction_set(machine['isa'])}, {when}."
    )


BLOCKS = {
    "peak": peak,
    "memory": memory,
    "scaling": scaling,
    "choice": choice,
    "fit": fit,
    "ablation": ablation,
    "crossovers": crossovers,
    "sparse_summary": sparse_summary,
    "growth": growth,
    "summary": summary,
}


def written(text: str) -> str:
    """A page with all of its blocks made anew."""

    def made(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        content = BLOCKS[name]() if name in BLOCKS else ratios(name)
        # Markdown needs an empty line on each side of a table.
        return f"{begin}\n{content}\n\n{end}"

    return BLOCK.sub(made, text)


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or compare them with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 if a page is old or a run names no commit",
    )
    given = parser.parse_args(argv)
    stale = []
    for name in PAGES:
        path = TREE / name
        text = path.read_text(encoding="utf-8")
        new = written(text)
        if new != text:
            stale.append(name)
            if not given.check:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'not up to date' if given.check else 'written'}: {', '.join(stale)}")
    if no_commit:
        print("\n".join([f"warning: {counted(len(no_commit), 'run')} without a commit:", *no_commit.values()]))
    return int(given.check and bool(stale or no_commit))


if __name__ == "__main__":
    sys.exit(main())
