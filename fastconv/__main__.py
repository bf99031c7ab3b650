"""``python -m fastconv``: the demo; ``python -m fastconv info``: what is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import fastconv


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastconv", description="Convolution as linear algebra.")
    parser.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{demo,info}")
    demo = commands.add_parser("demo", help="train a small net on real handwritten digits (the default)")
    for part in (parser, demo):
        # A default here would overwrite what stands before the word `demo`.
        part.add_argument(
            "--epochs", type=_positive, default=argparse.SUPPRESS, help="passes over the digits (default 40)"
        )
        part.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of weights and order (default 0)")
        part.add_argument(
            "--out", type=Path, default=argparse.SUPPRESS, help="picture to write (default fastconv_demo.png)"
        )
    commands.add_parser("info", help="print version, BLAS, threads and algorithms")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        fastconv.show_config()
        return 0
    out = getattr(options, "out", Path("fastconv_demo.png"))
    if not out.parent.is_dir():
        print(f"--out {out}: there is no folder {out.parent}", file=sys.stderr)
        return 2
    try:
        from fastconv.demo.run import run

        run(out, getattr(options, "epochs", 40), getattr(options, "seed", 0))
    except ModuleNotFoundError as error:
        print(f"The demo needs {error.name}; type: python -m pip install 'fastconv[demo]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; no picture was written.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
