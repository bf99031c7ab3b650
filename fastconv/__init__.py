"""fastconv: convolution as linear algebra, on NumPy arrays."""

from importlib import import_module as _import_module

from fastconv.runtime import interrupt as _interrupt

try:
    # These modules have no fallback, so a source tree without them is reported at once.
    for _module in ("threads.team", "buffers.buffers", "gemm.microkernel"):
        _import_module(f"fastconv._ext.{_module}")
except ModuleNotFoundError as _error:
    if not (_error.name or "").startswith("fastconv._ext"):
        raise
    raise ImportError(
        "fastconv's compiled modules are not built in this source tree; "
        "type `python -m pip install -e .` in the folder that holds setup.py"
    ) from None

import typing as _typing

from fastconv import layers
from fastconv._version import __version__
from fastconv.adapters.threadpoolctl import register_if_loaded as _register_if_loaded, register_threadpoolctl
from fastconv.convolution.choose import algorithms
from fastconv.geometry.conv import ConvGeometry, conv_geometry, conv_output_shape
from fastconv.geometry.pads import same_pad
from fastconv.layers import __all__ as _layer_names
from fastconv.lowering.columns import col2im, im2col
from fastconv.runtime.threads import get_threads, set_threads, threads
from fastconv.runtime.workspace import release_memory

if _typing.TYPE_CHECKING:
    from fastconv import gradient_check, graph
    from fastconv.geometry.receptive import ReceptiveField, receptive_field
    from fastconv.layers import *
    from fastconv.nets.summary import LayerSummary, Summary, summarize
    from fastconv.report.config import show_config
    from fastconv.report.explain import explain
    from fastconv.toeplitz import convolution_matrix, toeplitz_matrix, toeplitz_operator

#: Maps names that most programs do not use to their modules. The module is imported when the name is first used. For
#: example, the matrix functions need `scipy.sparse`, whose import takes three times as long as all other imports.
_LATER = {
    "LayerSummary": "nets.summary",
    "ReceptiveField": "geometry.receptive",
    "Summary": "nets.summary",
    "convolution_matrix": "toeplitz",
    "explain": "report.explain",
    "gradient_check": "",
    "graph": "",
    "receptive_field": "geometry.receptive",
    "show_config": "report.config",
    "summarize": "nets.summary",
    "toeplitz": "",
    "toeplitz_matrix": "toeplitz",
    "toeplitz_operator": "toeplitz",
}

__all__ = [
    "ConvGeometry",
    "LayerSummary",
    "ReceptiveField",
    "Summary",
    "algorithms",
    "col2im",
    "conv_geometry",
    "conv_output_shape",
    "convolution_matrix",
    "explain",
    "get_threads",
    "gradient_check",
    "graph",
    "im2col",
    "layers",
    "receptive_field",
    "register_threadpoolctl",
    "release_memory",
    "same_pad",
    "set_threads",
    "show_config",
    "summarize",
    "threads",
    "toeplitz_matrix",
    "toeplitz_operator",
    *_layer_names,
]


def __getattr__(name: str) -> _typing.Any:
    if name in _layer_names:
        value = getattr(layers, name)
    elif name in _LATER:
        module = _import_module(f"{__name__}.{_LATER[name] or name}")
        value = getattr(module, name) if _LATER[name] else module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_layer_names})


_register_if_loaded()
