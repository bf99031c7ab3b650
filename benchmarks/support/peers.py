"""A layer as fastconv and its peers compute it: calls without arguments, or None where a peer is not there.

Nothing is imported before it is asked for: what measures memory must not hold what it does not use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

import fastconv
from support.layers import Layer

Call = Callable[[], Any]

#: What backward computes, by the name of the algorithms' op: dx, dw, db. 'backward' is all of them.
NEEDED = {
    "backward": (True, True, True),
    "backward_data": (True, False, False),
    "backward_weights": (False, True, False),
}


@cache
def optional(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def ours(
    layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray, algorithm: str = "auto"
) -> Call:
    """fastconv, as its users call it; the forward pass before a backward one is not part of the call."""
    if op == "forward":
        return partial(fastconv.conv, x, w, b, **layer.options, algorithm=algorithm)
    _, kept = fastconv.conv_forward(x, w, b, **layer.options, algorithm=algorithm)
    need_dx, need_dw, need_db = NEEDED[op]
    return partial(fastconv.conv_backward, dout, kept, need_dx=need_dx, need_dw=need_dw, need_db=need_db)


def pytorch(layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray) -> Call | None:
    """PyTorch without autograd, and the function that its autograd calls."""
    torch = optional("torch")
    if torch is None:
        return None
    tensors = tuple(map(torch.from_numpy, (x, w, b, dout)))
    stride, pad, dilation = (list(layer.options[name]) for name in ("stride", "pad", "dilation"))
    if op == "forward":
        convolve = getattr(torch.nn.functional, f"conv{layer.rank}d")
        # Nothing here asks for a gradient, so no graph is kept; no_grad spares the question.
        return torch.no_grad()(partial(convolve, *tensors[:3], stride, pad, dilation, layer.groups))
    backward = torch.ops.aten.convolution_backward
    sizes = [layer.filters], stride, pad, dilation, False, [0] * layer.rank, layer.groups, list(NEEDED[op])
    return torch.no_grad()(partial(backward, tensors[3], tensors[0], tensors[1], *sizes))


@cache
def why_no_onnxruntime(dtype: str) -> str | None:
    """Why ONNX Runtime cannot take part in this dtype, None where it can: it is asked."""
    if optional("onnxruntime") is None or optional("onnx") is None:
        return "it is not installed"
    try:
        _session(Layer("", 3, 1, 1, 1), np.ones((1, 1, 1, 1), dtype), np.ones(1, dtype), 1)
    except optional("onnxruntime").capi.onnxruntime_pybind11_state.NotImplemented as error:
        return str(error).rsplit(":", 1)[-1].strip()
    return None


def onnxruntime(layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, threads: int) -> Call | None:
    """ONNX Runtime, its weights part of the model and so packed beforehand; it has forward only."""
    if op != "forward" or why_no_onnxruntime(x.dtype.name) is not None:
        return None
    session = _session(layer, w, b, threads)
    return lambda: session.run(None, {"x": x})[0]


def _session(layer: Layer, w: np.ndarray, b: np.ndarray, threads: int) -> Any:
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    kind = onnx.helper.np_dtype_to_tensor_dtype(w.dtype)
    node = onnx.helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["out"],
        strides=layer.axes(layer.stride),
        pads=layer.axes(layer.pad) * 2,
        dilations=layer.axes(layer.dilation),
        group=layer.groups,
    )
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [onnx.helper.make_tensor_value_info("x", kind, ["N", *layer.x_shape(1)[1:]])],
        [onnx.helper.make_tensor_value_info("out", kind, None)],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")],
    )
    # Versions that the oldest release we allow knows.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
