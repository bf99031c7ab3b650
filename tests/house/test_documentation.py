"""Everything that users can import is listed, and has a complete docstring."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import fastconv
from fastconv import gradient_check
from fastconv.compat import cmu11785, cs231n, deeplearning_ai, dlfs
from fastconv.graph import Gradients, Node, Tape

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


def entries(doc, heading="Parameters"):
    """The parameters of a numpydoc docstring, or the entries of another section, with the text of each entry."""
    section = re.search(rf"^{heading}\n-+\n(.*?)(?=^\S[^\n]*\n-{{3,}}$|\Z)", doc, re.M | re.S)
    found, names, text = {}, (), []
    for line in [*(section[1] if section else "").splitlines(), ""]:
        if line and not line.startswith(" "):
            names, text = re.split(r",\s*", line.split(" : ")[0]), []
        text.append(line.strip())
        found.update({name.strip(): text for name in names})
    return {name: " ".join(filter(None, text)) for name, text in found.items()}


SAME = re.compile(r"\b(?:As|As in|See) `(\w+)`(?! returns)")
REFERRING = [
    (name, parameter, SAME.findall(text))
    for module, name in DOCUMENTED
    if module is fastconv
    for parameter, text in entries(inspect.getdoc(getattr(module, name)) or "").items()
    if SAME.search(text)
]


def test_a_parameter_that_is_the_same_elsewhere_is_documented_there():
    """The text "See `conv_backward`." stands for that function's entry of the same parameter."""
    assert len(REFERRING) > 20
    for name, parameter, others in REFERRING:
        functions = [getattr(fastconv, other) for other in others]
        documented = {each for function in functions for each in entries(inspect.getdoc(function))}
        if parameter.startswith("**"):
            documented.update(f"**{each}" for function in functions for each in inspect.signature(function).parameters)
        assert parameter in documented, f"{name}: {parameter} is not in {others}"


CONVENTIONS = [
    *fastconv.layers.__all__,
    "im2col",
    "col2im",
    "toeplitz_matrix",
    "toeplitz_operator",
    "convolution_matrix",
]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_docstrings_refer_to_the_conventions(name):
    """What is common to all is on one page."""
    doc = inspect.getdoc(getattr(fastconv, name))
    assert "docs/conventions.md" in doc
    for common in ("cast to the dtype of the forward pass", "counts back from all CPUs", "overlapping no input"):
        assert common not in re.sub(r"\s+", " ", doc), "this is on the page"


@pytest.mark.parametrize("layer", LAYERS)
def test_docstrings_of_layers_are_whole(layer):
    doc = inspect.getdoc(layer)
    assert layer.__doc__ and ">>>" in doc and "Raises\n---" in doc
    for parameter in inspect.signature(layer).parameters:
        assert re.search(rf"\b{parameter}\b", doc.split(">>>")[0]), f"{parameter} is not described"
    for method in (layer.forward, layer.backward):
        assert inspect.getdoc(method), f"{method.__qualname__} is not described"


def attributes_of(kind):
    """The public attributes of the objects of a class: its slots, its fields and its properties."""
    properties = (name for name, value in vars(kind).items() if isinstance(value, property))
    names = {*vars(kind).get("__slots__", ()), *getattr(kind, "__dataclass_fields__", ()), *properties}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Node, Gradients, fastconv.Summary, fastconv.LayerSummary])
def test_docstrings_of_results_are_whole(kind):
    doc = inspect.getdoc(kind)
    described = entries(doc, "Attributes")
    assert attributes_of(kind) == set(described), "the section Attributes lists other attributes than the class has"
    assert all(described.values()), "an attribute has no description"
    raised = entries(doc, "Raises")
    assert raised and all(raised.values()), "errors are not described"
    examples = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__)
    assert sum(len(test.examples) for test in examples) > 3, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not sum(runner.run(test).failed for test in examples)


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
