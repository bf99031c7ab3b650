"""Compare the CPU time of `import fastconv` with that of `import numpy`: medians of warm imports, measured in turns.

    python benchmarks/bench_import.py [RUNS]

Each import is timed inside a process of its own, so that starting Python does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
TARGET = 1.5


def seconds(module: str) -> float:
    """CPU time of one import. Bytecode is written even if PYTHONDONTWRITEBYTECODE is set, so that imports are warm."""
    code = f"import time; start = time.process_time(); import {module}; print(time.process_time() - start)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=TREE, capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def main(runs: int = 20) -> None:
    times: dict[str, list[float]] = {"numpy": [], "fastconv": []}
    for module in times:
        seconds(module)
    for _ in range(runs):
        for module, found in times.items():
            found.append(seconds(module))
    for module, found in times.items():
        print(f"import {module:<9} median {1e3 * statistics.median(found):6.1f} ms, least {1e3 * min(found):6.1f} ms")
    ratio = statistics.median(times["fastconv"]) / statistics.median(times["numpy"])
    print(f"ratio of the medians of {runs} runs each: {ratio:.2f} (at most {TARGET})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
