"""Draw the pictures of benchmarks again from their JSON, and the summary of README from the JSON of bench_layers.

Run as ``python benchmarks/draw_pictures.py [--from FILE.json ...] [--out FOLDER]``. Without ``--from``, it draws all
pictures of ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from support.picture_style import STYLE, save
from support.pictures import draw_all, draw_summary

RESULTS = Path(__file__).parent / "results"


def draw(path: Path, folder: Path) -> list[Path]:
    """Draw all pictures of one run."""
    import matplotlib

    data = json.loads(path.read_text(encoding="utf-8"))
    drawn = draw_all(data, folder, path.stem)
    if path.stem == "bench_layers":
        with matplotlib.rc_context(STYLE):
            drawn += save(draw_summary(data), folder, "summary")
    return drawn


def main(argv: list[str] | None = None) -> int:
    """Draw the pictures, and print the names of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="files", type=Path, nargs="+", metavar="FILE.json", help="the runs to draw")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: the folder of the JSON)")
    given = parser.parse_args(argv)
    for path in given.files or sorted(RESULTS.glob("*.json")):
        for written in draw(path, given.out or path.parent):
            print(f"written: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
