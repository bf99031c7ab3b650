"""A layer as fastconv and its peers compute it: calls without arguments, or None if a peer is not available.

Peers are imported when they are first used, because measurements of memory must not include unused modules.
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

#: The gradients that each op computes (dx, dw, db); 'backward' computes all of them.
NEEDED = {
    "backward": (True, True, True),
    "backward_data": (True, False, False),
    "backward_weights": (False, True, False),
}


@cache
def optional(name: str) -> Any:
    """The module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def ours(
    layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray, algorithm: str = "auto"
) -> Call:
    """fastconv as its users call it. A backward call does not include the forward pass before it."""
    if op == "forward":
        return partial(fastconv.conv, x, w, b, **layer.options, algorithm=algorithm)
    _, kept = fastconv.conv_forward(x, w, b, **layer.options, algorithm=algorithm)
    need_dx, need_dw, need_db = NEEDED[op]
    return partial(fastconv.conv_backward, dout, kept, need_dx=need_dx, need_dw=need_dw, need_db=need_db)


def pytorch(layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray) -> Call | None:
    """PyTorch: the convolution without autograd, or the function that its autograd calls."""
    torch = optional("torch")
    if torch is None:
        return None
    tensors = tuple(map(torch.from_numpy, (x, w, b, dout)))
    stride, pad, dilation = (list(layer.options[name]) for name in ("stride", "pad", "dilation"))
    if op == "forward":
        convolve = getattr(torch.nn.functional, f"conv{layer.rank}d")
        # No tensor requires a gradient, so no graph is built; no_grad also saves the check.
        return torch.no_grad()(partial(convolve, *tensors[:3], stride, pad, dilation, layer.groups))
    backward = torch.ops.aten.convolution_backward
    sizes = [layer.filters], stride, pad, dilation, False, [0] * layer.rank, layer.groups, list(NEEDED[op])
    return torch.no_grad()(partial(backward, tensors[3], tensors[0], tensors[1], *sizes))


@cache
def why_no_onnxruntime(dtype: str) -> str | None:
    """The reason why ONNX Runtime cannot compute in this dtype, or None; found by trying."""
    if optional("onnxruntime") is None or optional("onnx") is None:
        return "it is not installed"
    try:
        _session(Layer("", 3, 1, 1, 1), np.ones((1, 1, 1, 1), dtype), np.ones(1, dtype), 1)
    except optional("onnxruntime").capi.onnxruntime_pybind11_state.NotImplemented as error:
        return str(error).rsplit(":", 1)[-1].strip()
    return None


def onnxruntime(layer: Layer, op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray, threads: int) -> Call | None:
    """ONNX Runtime, which only has forward. The weights are part of the model, so they are packed beforehand."""
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
    # Versions that the oldest supported release of ONNX Runtime can read.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
