"""``python -m fastconv``: the demo; ``python -m fastconv info``: what is installed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import fastconv


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; a seed is 0 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastconv", description="Convolution as linear algebra.")
    parser.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="[demo | info]")
    demo = commands.add_parser("demo", help="train a small net on real handwritten digits (the default)")
    for part in (parser, demo):
        # A default here would overwrite what stands before the word `demo`.
        part.add_argument(
            "--epochs", type=_positive, default=argparse.SUPPRESS, help="passes over the digits (default 40)"
        )
        part.add_argument("--seed", type=_seed, default=argparse.SUPPRESS, help="of weights and order (default 0)")
        part.add_argument(
            "--out", type=Path, default=argparse.SUPPRESS, help="picture to write (default fastconv_demo.png)"
        )
    commands.add_parser("info", help="print version, BLAS, threads and algorithms")
    return parser


def _unfit(out: Path) -> str | None:
    """Why the picture cannot be written to `out`, found before anything is trained."""
    folder = out.resolve().parent
    if out.suffix.lower() != ".png":
        return "the picture is a PNG; give a name that ends in .png"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if out.exists() and not out.is_file():
        return "it exists and is not a file"
    if not os.access(folder, os.W_OK) or (out.exists() and not os.access(out, os.W_OK)):
        return "it may not be written to"
    return None


def _missing() -> list[str]:
    """The packages of the extra `demo` that are not there."""
    missing = []
    for name, package in (
        ("sklearn.datasets", "scikit-learn"),
        ("rich", "rich"),
        ("matplotlib", "matplotlib"),
        ("threadpoolctl", "threadpoolctl"),
    ):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(package)
    return missing


def _demo(options: argparse.Namespace) -> int:
    out = getattr(options, "out", Path("fastconv_demo.png"))
    reason = _unfit(out)
    if reason:
        print(f"--out {out}: {reason}", file=sys.stderr)
        return 2
    missing = _missing()
    if missing:
        print(
            f"The demo needs {', '.join(missing)}; type: python -m pip install 'fastconv[demo]' "
            '(in a clone of the repository: python -m pip install -e ".[demo]")',
            file=sys.stderr,
        )
        return 1
    from fastconv.demo.run import run

    run(out, getattr(options, "epochs", 40), getattr(options, "seed", 0))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        if options.command != "info":
            return _demo(options)
        fastconv.show_config()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nInterrupted; no picture was written.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has enough; what is buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
