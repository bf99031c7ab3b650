"""The command line: `python -m fastconv` runs the demo; `info`, `explain` and `bench-kernel` print reports."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
import textwrap
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import fastconv
from fastconv.runtime import interrupt as _interrupt


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; a seed must be 0 or more")
    return value


def _ints(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1,3,32,32") from None


def _per_axis(text: str) -> int | tuple[int, ...]:
    values = _ints(text)
    return values[0] if len(values) == 1 else values


def _stride(text: str) -> int | Fraction | tuple[int | Fraction, ...]:
    try:
        values = tuple(Fraction(part) if "/" in part else int(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of strides such as 2, 2,1 or 1/2") from None
    return values[0] if len(values) == 1 else values


def _pad(text: str) -> str | int | tuple[int, ...]:
    return text if text.isidentifier() else _per_axis(text)


def _explain(options: argparse.Namespace) -> int:
    geometry = ("stride", "upsample", "dilation", "pad", "groups", "pad_mode", "flip")
    names = ("dtype", "op", *geometry, "algorithm", "threads", "density", "rank_one")
    try:
        print(fastconv.explain(options.x_shape, options.w_shape, **{name: getattr(options, name) for name in names}))
    except (ValueError, TypeError) as error:
        print(f"python -m fastconv explain: {error}", file=sys.stderr)
        return 2
    return 0


def _bench_kernel(options: argparse.Namespace) -> int:
    from fastconv.adapters import rich as _rich
    from fastconv.report import kernels as _kernels

    try:
        rates = _kernels.measure(options.families, options.isa, options.dtype)
        rows = map(_kernels.cells, itertools.chain([next(rates)], rates))
    except (ValueError, TypeError) as error:
        print(f"python -m fastconv bench-kernel: {error}", file=sys.stderr)
        return 2
    title = _kernels.title(options.isa, options.dtype)
    if _rich.is_installed():
        _rich.print_table(title, _kernels.HEADER, rows, _kernels.NOTE, left=2)
    else:
        print(title, _kernels.plain_table(_kernels.HEADER, rows), textwrap.fill(_kernels.NOTE, 100), sep="\n\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastconv", description="Convolution as linear algebra.")
    parser.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="[demo | info | explain | bench-kernel]")
    demo = commands.add_parser("demo", help="train a small net on real handwritten digits (the default)")
    for part in (parser, demo):
        # Suppress the defaults of the subparser, because they would override the options before the word `demo`.
        part.add_argument(
            "--epochs", type=_positive, default=argparse.SUPPRESS, help="number of passes over the digits (default 40)"
        )
        part.add_argument(
            "--seed", type=_seed, default=argparse.SUPPRESS, help="seed of the weights and the order (default 0)"
        )
        part.add_argument(
            "--out", type=Path, default=argparse.SUPPRESS, help="picture to write (default fastconv_demo.png)"
        )
    commands.add_parser("info", help="print version, instruction sets, BLAS, threads and algorithms")
    layer = commands.add_parser(
        "explain",
        help="print which algorithm a layer gets, and why",
        epilog="For example: python -m fastconv explain 16,64,56,56 64,64,3,3 --pad 1",
    )
    layer.add_argument("x_shape", type=_ints, help="N,C,H,W (or N,C,W or N,C,D,H,W)")
    layer.add_argument("w_shape", type=_ints, help="F,C/groups,KH,KW")
    layer.add_argument("--dtype", default="float32", help="float32 (default) or float64")
    layer.add_argument("--op", default="forward", help="forward (default), backward_data or backward_weights")
    layer.add_argument("--stride", type=_stride, default=1, help="one for all axes, or one each: 2 or 2,1 or 1/2")
    layer.add_argument("--upsample", type=_per_axis, default=1, help="zeros between cells first: 2 or 2,1")
    layer.add_argument("--dilation", type=_per_axis, default=1, help="one for all axes, or one each: 2 or 2,1")
    layer.add_argument("--pad", type=_pad, default=0, help="as --dilation, or valid, same, same_lower, full")
    layer.add_argument("--groups", type=_whole, default=1)
    layer.add_argument("--pad-mode", default="zeros", help="zeros (default), reflect, replicate or circular")
    layer.add_argument("--flip", action="store_true", help="a true convolution, whose kernel is flipped")
    layer.add_argument("--algorithm", default="auto", help="auto (default), exact, or the name of an algorithm")
    layer.add_argument("--threads", type=_whole)
    layer.add_argument("--density", type=_share, default=1.0, help="share of the weights that are not zero (default 1)")
    layer.add_argument("--rank-one", action="store_true", help="kernels that are outer products, such as Gaussians")
    kernels = commands.add_parser(
        "bench-kernel",
        help="print the rates of the compiled kernels on this machine",
        epilog="For example: python -m fastconv bench-kernel microkernel winograd --isa avx2 --dtype float64",
    )
    kernels.add_argument("families", nargs="*", metavar="FAMILY", help="families of kernels (default all)")
    kernels.add_argument("--isa", help="instruction set, such as avx2 (default the one in use)")
    kernels.add_argument("--dtype", default="float32", help="float32 (default) or float64")
    return parser


def _unfit(out: Path) -> str | None:
    """Return the reason why the picture cannot be written to `out`, or None. This check runs before the training."""
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
    """Return the packages of the extra `demo` that are not installed."""
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


def _info(_: argparse.Namespace) -> int:
    fastconv.show_config()
    return 0


#: The commands that print a report.
_REPORTS = {"info": _info, "explain": _explain, "bench-kernel": _bench_kernel}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    _interrupt.restore()
    command = None
    try:
        options = _parser().parse_args(arguments)
        command = options.command
        if command not in _REPORTS:
            return _demo(options)
        status = _REPORTS[command](options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"\nInterrupted{'' if command in _REPORTS else '; no picture was written'}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe. Redirect stdout, so that flushing at exit does not raise a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
