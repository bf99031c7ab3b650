"""Everything that users can import is listed, and has a complete docstring."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import fastconv
from fastconv import gradient_check
from fastconv.compat import cmu11785, cs231n, deeplearning_ai, dlfs
from fastconv.graph import Tape

ROOT = Path(fastconv.__file__).parent
TREE = ROOT.parent


GRADIENT_CHECK = [name for name in vars(gradient_check) if name.startswith(("eval_", "grad_", "rel_"))]
PACKS = (cmu11785, cs231n, deeplearning_ai, dlfs)
PUBLIC = [(module, name) for module in (fastconv, *PACKS) for name in module.__all__]
PUBLIC += [(Tape, name) for name in ("__call__", *(name for name in dir(Tape) if not name.startswith("_")))]
PUBLIC += [(gradient_check, name) for name in GRADIENT_CHECK]
DOCUMENTED = [(module, name) for module, name in PUBLIC if inspect.isfunction(getattr(module, name))]
LAYERS = [
    getattr(module, name) for module in PACKS for name in module.__all__ if inspect.isclass(getattr(module, name))
]


@pytest.mark.parametrize(("module", "name"), DOCUMENTED, ids=[f"{m.__name__}.{n}" for m, n in DOCUMENTED])
def test_docstrings_are_whole(module, name):
    function = getattr(module, name)
    doc, signature = inspect.getdoc(function) or "", inspect.signature(function)
    assert ">>>" in doc, "no example"
    for parameter in signature.parameters:
        if parameter not in ("self", "unknown"):  # `unknown` collects options that are refused.
            assert re.search(rf"\b{parameter}\b", doc.split(">>>")[0]), f"{parameter} is not described"
    if signature.parameters:
        assert "Raises\n---" in doc or name == "rel_error", "errors are not described"
    if signature.return_annotation not in ("None", "Iterator[None]"):
        assert "Returns\n---" in doc, "the result is not described"


@pytest.mark.parametrize("layer", LAYERS)
def test_docstrings_of_layers_are_whole(layer):
    doc = inspect.getdoc(layer)
    assert layer.__doc__ and ">>>" in doc and "Raises\n---" in doc
    for parameter in inspect.signature(layer).parameters:
        assert re.search(rf"\b{parameter}\b", doc.split(">>>")[0]), f"{parameter} is not described"
    for method in (layer.forward, layer.backward):
        assert inspect.getdoc(method), f"{method.__qualname__} is not described"


def test_everything_public_is_listed():
    public = {name for name in dir(fastconv) if not name.startswith("_")} - {"annotations"}
    folders = {path.stem for path in ROOT.iterdir()}
    assert public - folders == set(fastconv.__all__) - folders
    assert set(fastconv.__all__) & folders == {"gradient_check", "graph", "layers"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastconv.__version__)


@pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")
def test_everything_public_is_named_on_a_page():
    pages = [TREE / "README.md", *(TREE / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    # Pages name a pair by its full name or by the common part: `max_pool_forward`, or `max_pool`.
    stems = {name: re.sub(r"_(forward|backward)$", "", name) for name in fastconv.__all__}
    missing = {name for name, stem in stems.items() if not re.search(rf"\b{stem}", text)}
    assert missing <= {"LayerSummary", "Summary"}  # The docstring of `summarize` describes both.


@pytest.mark.parametrize("package", ["layers", "graph", "nets", "adapters"])
def test_public_packages_export_what_they_list(package):
    module = importlib.import_module(f"fastconv.{package}")
    assert all(getattr(module, name) is not None for name in module.__all__)
