"""Layers as forward/backward pairs with caches, under the names of CS231n.

docs/conventions.md describes shapes, dtypes, threads, `out`, caches and errors, which are the same for all layers.
`__init__.pyi` lists the public names and the modules that define them.
"""

import os as _os
import re as _re
import typing as _typing
from importlib import import_module as _import_module

#: Modules that are imported with the package, because most programs use them. The others are imported on first use.
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
    """Return a dict that maps each public name to its module, as `__init__.pyi` lists them."""
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
