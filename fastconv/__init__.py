"""fastconv: convolution as linear algebra, on NumPy arrays."""

try:
    from fastconv._ext.depthwise import product as _built_depthwise
    from fastconv._ext.im2col import im2col as _built_im2col
    from fastconv._ext.implicit import Multiply as _built_implicit
    from fastconv._ext.pool import max_forward as _built_pool
    from fastconv._ext.pool_rows import forward_rows as _built_pool_rows
    from fastconv._ext.team import help as _built_team
    from fastconv._ext.toeplitz import fill as _built_toeplitz
    from fastconv._ext.winograd import product as _built_winograd
except ModuleNotFoundError as _error:
    if not (_error.name or "").startswith("fastconv._ext"):
        raise
    raise ImportError(
        "fastconv's compiled modules are not built in this source tree; "
        "type `python -m pip install -e .` in the folder that holds setup.py"
    ) from None

from fastconv import gradient_check, graph, layers
from fastconv._config import show_config
from fastconv._explain import explain
from fastconv._receptive import ReceptiveField, receptive_field
from fastconv._summary import LayerSummary, Summary, summarize
from fastconv._threadpoolctl import register_if_loaded as _register_if_loaded
from fastconv._threadpoolctl import register_threadpoolctl
from fastconv._threads import get_threads, set_threads, threads
from fastconv._version import __version__
from fastconv.algorithms import algorithms
from fastconv.geometry import ConvGeometry, conv_geometry, conv_output_shape, same_pad
from fastconv.layers import *
from fastconv.layers import __all__ as _layer_names
from fastconv.lowering import col2im, im2col
from fastconv.toeplitz import convolution_matrix, toeplitz_matrix, toeplitz_operator

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
    "same_pad",
    "set_threads",
    "show_config",
    "summarize",
    "threads",
    "toeplitz_matrix",
    "toeplitz_operator",
    *_layer_names,
]

_register_if_loaded()
