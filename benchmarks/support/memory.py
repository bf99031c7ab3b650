"""The peak memory of a call, measured in a process of its own.

As a program it reads a JSON description of the call from standard input, and writes the answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.runtime import memory as _memory
from support.layers import Layer
from support.peers import Call, onnxruntime, ours, pytorch

MIB = 1 << 20
#: A contender that takes longer than this is left out.
SECONDS = 120

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

#: A description of what is counted, for captions.
COUNTED = (
    "Peak extra memory: the rise of a fresh process's resident memory during the first call on a layer, without "
    "the inputs and the results. Before the call, every contender computes a tiny layer, so that libraries, "
    "threads and code are loaded. Workspaces, copies of the input, matrices of columns and memory that an "
    "allocator keeps are counted. ONNX Runtime's packed weights are not counted, because it makes them when it "
    "loads the model. Large arrays use pages of up to 2 MiB."
)


@dataclass(frozen=True)
class Extra:
    """The answer: bytes, or the reason why there are none."""

    nbytes: int | None
    reason: str = ""


def why_not() -> str | None:
    """The reason why memory cannot be measured here, or None."""
    if not STATUS.exists() or "VmHWM" not in STATUS.read_text():
        return "this system has no /proc/self/status with VmHWM, by which peaks are read (Linux has)"
    if not os.access(RESET, os.W_OK):
        return "/proc/self/clear_refs cannot be written, by which peaks are reset"
    return None


def extra(contender: str, layer: Layer, op: str, batch: int, threads: int) -> Extra:
    """The memory of `contender` ('PyTorch', 'ONNX Runtime' or an algorithm of fastconv), measured in a new process.

    If op is 'matrix', the contender makes the layer's Toeplitz matrix: 'fastconv' or 'COO to CSR'.
    """
    given = {"contender": contender, "layer": list(layer), "op": op, "batch": batch, "threads": threads}
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    limits = {"FASTCONV_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "support.memory"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, **paths, **limits},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Extra(None, f"it took more than {SECONDS} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Extra(None, lines[-1] if lines else f"it ended with {done.returncode}")
    return Extra(json.loads(done.stdout))


def _resident(which: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) << 10


def _call(contender: str, layer: Layer, op: str, arrays: tuple[np.ndarray, ...], threads: int) -> Call | None:
    if op == "matrix":
        from support.matrices import by_coo, ours as matrix

        return partial({"fastconv": matrix, "COO to CSR": by_coo}[contender], layer, arrays[1])
    if contender == "PyTorch":
        return pytorch(layer, op, *arrays)
    if contender == "ONNX Runtime":
        return onnxruntime(layer, op, *arrays[:3], threads)
    # In a thread that ends, because its workspace is freed with it and is not there during the backward pass.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(ours, layer, op, *arrays, contender).result()


def _nbytes(result: Any) -> int:
    if result is None:
        return 0
    if hasattr(result, "indptr"):
        result = result.data, result.indices, result.indptr
    return sum(map(_nbytes, result)) if isinstance(result, tuple) else result.nbytes


def _measure(contender: str, layer: Layer, op: str, batch: int, threads: int) -> int:
    """Measure the call in this process, once."""
    if contender == "PyTorch":
        import torch

        torch.set_num_threads(threads)
    least = tuple(d * (k - 1) + 1 for d, k in zip(layer.axes(layer.dilation), layer.axes(layer.kernel), strict=True))
    tiny = layer._replace(size=least, channels=layer.groups, filters=layer.groups)
    call = _call(contender, tiny, op, tiny.arrays(1), threads)
    if call is None:
        raise SystemExit("it is not installed, or has no such op")
    call()
    call = _call(contender, layer, op, layer.arrays(batch), threads)
    assert call is not None
    # Memory that was freed but is still resident would hide as many bytes of the call.
    _memory.release()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    before = _resident("VmRSS")
    result = call()
    return max(0, _resident("VmHWM") - before - _nbytes(result))


def _as_layer(values: list[Any]) -> Layer:
    return Layer(*(tuple(value) if isinstance(value, list) else value for value in values))


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    print(_measure(**{**wanted, "layer": _as_layer(wanted["layer"])}))
