"""The workspace that algorithms state, against the memory that they allocate."""

import tracemalloc

import numpy as np
import pytest
from cases import kernels_for

import fastconv
from fastconv._ext.buffers import buffers
from fastconv.convolution import choose as ALGORITHMS, plan as _plan
from fastconv.convolution.implicit_gemm import calls as IMPLICIT
from fastconv.convolution.plan import Case
from fastconv.runtime import memory as _memory, workspace as _workspace
from fastconv.runtime.plan_cache import plans

#: x, w and options: small and large images, a strided kernel, groups, a pointwise layer, three axes and one axis.
LAYERS = {
    "7x7": ((4, 128, 7, 7), (160, 128, 3, 3), {"pad": 1}),
    "56x56": ((2, 32, 56, 56), (64, 32, 3, 3), {"pad": 1}),
    "stride": ((2, 40, 33, 37), (48, 40, 5, 5), {"stride": 2, "pad": 2}),
    "depthwise": ((2, 64, 40, 40), (64, 1, 3, 3), {"pad": 1, "groups": 64}),
    "pointwise": ((3, 256, 14, 14), (192, 256, 1, 1), {}),
    "3d": ((1, 16, 6, 20, 20), (24, 16, 3, 3, 3), {"pad": 1}),
    "1d": ((2, 32, 3000), (48, 32, 7), {"dilation": 4}),
}
#: All algorithms except `reference`, which is an oracle, and `toeplitz`, whose own tests measure it.
NAMES = ["im2col", "implicit", "winograd", "depthwise", "fft", "separable", "sparse"]
#: Bytes that are not counted: objects, tables, and the shared state of threads.
SLACK = 100_000


def asked_for(call):
    """The peak bytes of a call, including the workspace that is kept for the next call."""
    call()
    _workspace.release_workspaces()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(("dtype", "threads"), [(np.float32, 1), (np.float64, 2), (np.float32, 5)], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", NAMES)
def test_nothing_is_asked_for_beyond_what_was_said(algorithm, layer, dtype, threads, rng, monkeypatch):
    monkeypatch.setattr(_memory, "_pool", buffers.Pool(0))  # Memory of the pool is not traced.
    x_shape, w_shape, options = LAYERS[layer]
    geometry, entry = fastconv.conv_geometry(x_shape, w_shape, **options), ALGORITHMS.REGISTRY[algorithm]
    x, w, dout = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, geometry.out_shape))
    w, served = kernels_for(algorithm, w), 0
    for op in _plan.OPS:
        if entry.unsupported(Case.of(op, geometry, x.dtype)) is not None:
            continue
        result = np.empty_like({"forward": dout, "backward_data": x, "backward_weights": w}[op])
        call = entry.plan(Case.of(op, geometry, x.dtype, threads)).run
        arguments = {"forward": (x, w), "backward_data": (dout, w), "backward_weights": (x, dout)}[op]
        kept = w if algorithm == "sparse" and op == "backward_weights" else None  # only the pruned gradient
        peak = asked_for(
            lambda call=call, arguments=arguments, kept=kept, result=result: call(*arguments, kept, result)
        )
        assert peak <= entry.plan(Case.of(op, geometry, x.dtype, threads)).workspace_bytes + SLACK, op
        served += 1
    if not served:
        pytest.skip(entry.unsupported(Case.of("forward", geometry, x.dtype)))


def test_panels_that_would_not_be_kept_are_not_shared(monkeypatch):
    """Threads share packed weights only if the workspace that holds them can be kept for the next call."""
    shapes = (12, 50, 20, 25), (64, 50, 3, 3)

    def plan():
        geometry = fastconv.conv_geometry(*shapes, pad=1)
        plans.clear()
        (found,) = IMPLICIT.kernel_calls(Case.of("forward", geometry, np.dtype(np.float32), 2))
        plans.clear()
        return found.items, found.kernel.workspace, found.kernel.shared

    items, workspace, shared = plan()
    own = min(2, items) * workspace * 4
    assert shared and own + shared * 4 <= _workspace.KEPT_BYTES
    monkeypatch.setattr(_workspace, "KEPT_BYTES", own)
    assert plan() == (items, workspace, 0)
    monkeypatch.setattr(_workspace, "KEPT_BYTES", own - 1)  # too large even without packed weights
    assert plan() == (items, workspace, shared)
