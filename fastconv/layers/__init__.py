"""Layers as pairs of a forward and a backward function with a cache, named as in the course CS231n.

All layers follow the same rules for shapes, dtypes, threads, `out`, caches and errors: see docs/conventions.md.
`__init__.pyi` lists each public name and the module that defines it.
"""

import os as _os
import re as _re
import typing as _typing
from importlib import import_module as _import_module

#: The modules that are imported with the package, because most programs use them. All other modules are imported on
#: first use.
_FIRST = (
    "activation",
    "convolution.conv",
    "convolution.conv_transpose",
    "convolution.resampling",
    "dense",
    "pool.global_pooling",
    "pool.pooling",
)


def _modules() -> dict[str, str]:
    """Return a dict that maps each public name to the name of its module. Both are read from `__init__.pyi`."""
    with open(_os.path.join(_os.path.dirname(__file__), "__init__.pyi"), encoding="utf-8") as file:
        statements = _re.findall(r"^from (\S+) import (\([^)]*\)|.*)$", file.read(), _re.M)
    return {name: module for module, names in statements for name in _re.findall(r"(\w+) as", names)}


_MODULES = _modules()
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> _typing.Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


for _module in _FIRST:
    _import_module(f"{__name__}.{_module}")
