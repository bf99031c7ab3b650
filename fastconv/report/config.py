"""A description of this installation, for bug reports and for `python -m fastconv info`."""

from __future__ import annotations

import sys

import numpy as np

from fastconv._version import __version__
from fastconv.convolution.choose import DEFAULT_ALGORITHM, algorithms
from fastconv.runtime import blas as _blas, isa as _isa, threads as _threads


def _blas_behind_numpy() -> str:
    config = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
    count = _blas.threads()
    threads = "an unknown number of threads" if count is None else f"{count} thread{'s' * (count > 1)}"
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip() + f", {threads}"


def show_config() -> None:
    """Print the version, compiled modules, instruction sets, BLAS, threads and algorithms of this installation.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.show_config()
    fastconv ...
    """
    import platform
    from importlib import metadata

    from fastconv._ext.lowering import im2col as compiled

    rows = {
        "fastconv": __version__,
        "python": f"{platform.python_version()} ({sys.implementation.name}, {platform.machine()}, {sys.platform})",
        "numpy": np.__version__,
        "scipy": metadata.version("scipy"),
        "compiled": ("stable ABI" if ".abi3." in (compiled.__file__ or "") else "this Python only")
        + (", with bounds checks" if compiled.checked else ""),
        "instruction sets": f"{', '.join(_isa.compiled())}; this CPU runs {', '.join(_isa.usable())}; "
        f"in use {_isa.NAMES[_isa.current]}",
        "BLAS behind NumPy": _blas_behind_numpy(),
        "threads": f"{_threads.get_threads()} of {_threads.cpu_count()} CPUs",
        "algorithms": f"{', '.join(algorithms())}; {DEFAULT_ALGORITHM!r} by default",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
