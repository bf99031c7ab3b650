"""Which modules `import fastconv` imports, and how many; and names that are imported at first use."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest

import fastconv
from fastconv.runtime.records import dataclass

#: Slow modules of the standard library that only errors, tables or tools need.
HEAVY = {
    *("asyncio", "concurrent", "decimal", "difflib", "email", "fractions", "http", "importlib.metadata", "json"),
    *("logging", "multiprocessing", "random", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile"),
    *("unittest", "urllib.request", "xml"),
}


def imported(*statements):
    """The modules that each statement imports in a new process, without those of NumPy and of earlier statements."""
    code = ["import json, sys, numpy as np", "seen, new = set(sys.modules), []"]
    for statement in statements:
        code += [statement, "new.append(sorted(set(sys.modules) - seen))", "seen.update(sys.modules)"]
    code.append("print(json.dumps(new))")
    result = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    return [set(names) for names in json.loads(result.stdout)]


def packages(modules):
    return {name.split(".")[0] for name in modules}


def test_import_brings_little_beside_numpy():
    (new,) = imported("import fastconv")
    others = {name for name in new if not name.startswith("fastconv") and not name.startswith("_cython_")}
    assert "scipy" not in packages(new) and "numpy" not in packages(others)
    assert not others & HEAVY and not packages(others) & HEAVY
    assert packages(others) <= {*sys.stdlib_module_names, "cython_runtime"}
    assert len(others) <= 16, sorted(others)
    own = new - others
    later = ("toeplitz", "nets.summary", "graph", "layers.norm.batchnorm", "layers.sandwich", "_ext.norm.norm")
    assert "fastconv.layers.convolution.conv" in own and not own & {f"fastconv.{name}" for name in later}
    assert len(own) <= 144, sorted(own)


USUAL = """
x, w, b = np.ones((2, 3, 9, 9)), np.ones((4, 3, 3, 3)), np.ones(4)
for stride in (1, 2):
    out, cache = fastconv.conv_forward(x, w, b, {'stride': stride, 'pad': 1})
    fastconv.conv_backward(out, cache)
fastconv.conv(x, w, upsample=2, stride=2)
fastconv.conv(x, w, algorithm='fft')
out, cache = fastconv.conv_transpose_forward(x, np.ones((3, 2, 3, 3)), None, {'stride': 2})
fastconv.conv_transpose_backward(out, cache)
for forward, backward in (
    (fastconv.max_pool_forward, fastconv.max_pool_backward), (fastconv.avg_pool_forward, fastconv.avg_pool_backward)
):
    out, cache = forward(x, kernel_size=3)
    backward(out, cache)
fastconv.col2im(fastconv.im2col(x, 3), x.shape, 3)
fastconv.layers.spatial_batchnorm_forward(x * np.arange(9), np.ones(3), np.ones(3), {'mode': 'train'})
fastconv.layers.lrn_forward(x, {'size': 3})
h, cache = fastconv.affine_forward(x, np.ones((243, 5)), np.ones(5))
fastconv.relu_backward(h, fastconv.relu_forward(h)[1])
fastconv.explain((1, 1, 9), (1, 1, 3))
fastconv.summarize([('conv', 4, 3), 'relu', ('affine', 10)], (1, 3, 9, 9))
from fastconv import compat, gradient_check, graph
from fastconv.compat import cs231n, deeplearning_ai, dlfs, cmu11785
"""


def test_the_usual_calls_need_no_scipy():
    first, calls = imported("import fastconv", USUAL)
    assert "fastconv.nets.summary" in calls and "scipy" not in packages(first | calls)


def test_what_needs_scipy_imports_its_part():
    _, matrix, loss = imported(
        "import fastconv",
        "A = fastconv.toeplitz_matrix(np.ones((1, 1, 3)), (1, 5))\nassert A.nnz == 9",
        "fastconv.softmax_loss(np.ones((2, 3)), np.array([0, 1]))",
    )
    assert {"scipy.sparse", "fastconv.toeplitz"} <= matrix and "scipy.sparse" not in loss
    assert "scipy.fft" not in matrix | loss


def test_all_names_are_there_whatever_is_asked_first():
    names = sorted({*fastconv.__all__, "toeplitz", "algorithms"})
    layers = sorted(fastconv.layers.__all__)
    code = (
        f"import fastconv\nassert set({names}) <= set(dir(fastconv)) and set({layers}) <= set(dir(fastconv.layers))\n"
    )
    code += "\n".join(f"assert callable(fastconv.layers.{name})" for name in reversed(layers)) + "\n"
    code += f"assert all(callable(getattr(fastconv.layers, name)) for name in {layers})\n"
    code += "\n".join(f"assert fastconv.{name} is fastconv.{name}" for name in names)
    code += "\nassert fastconv.toeplitz.toeplitz_matrix is fastconv.toeplitz_matrix"
    code += "\nassert fastconv.graph.Tape.__module__ == 'fastconv.graph.tape'"
    imported(code, "from fastconv import *\nassert toeplitz_operator is fastconv.toeplitz_operator")
    _, later = imported("import fastconv.toeplitz", "assert fastconv.toeplitz.FORMATS")
    assert not later
    for package, later in ((fastconv, fastconv._LATER), (fastconv.layers, fastconv.layers._MODULES)):
        for name in later:
            assert package.__getattr__(name) is getattr(package, name)
    assert not hasattr(fastconv, "toeplitz_matirx") and not hasattr(fastconv.layers, "conv_backwards")
    with pytest.raises(AttributeError, match=r"module 'fastconv' has no attribute 'nothing'"):
        getattr(fastconv, "nothing")  # noqa: B009


@dataclass(frozen=True)
class Record:
    """A class made by `fastconv.runtime.records`."""

    a: int
    b: tuple[int, ...] = (1, 2)
    c: dict = dataclasses.field(default_factory=dict)

    def total(self):
        return self.a + sum(self.b)


@dataclasses.dataclass(frozen=True)
class Twin:
    """The same class made by `dataclasses`."""

    a: int
    b: tuple[int, ...] = (1, 2)
    c: dict = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Single:
    """A class whose constructor computes a field, and which defines its own `__repr__`."""

    a: object

    def __post_init__(self):
        if self.a is None:
            raise ValueError("a is None")

    def __repr__(self):
        return "single"


def test_records_are_frozen_dataclasses():
    for args, named in (((3,), {}), ((3, (4,)), {}), ((), {"b": (5,), "a": 2, "c": {1: 2}})):
        record, twin = Record(*args, **named), Twin(*args, **named)
        assert repr(record) == repr(twin).replace("Twin", "Record")
        assert dataclasses.asdict(record) == dataclasses.asdict(twin)
        assert record == Record(*args, **named) and record != twin and record != dataclasses.replace(record, a=9)
        for copied in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):
            assert copied == record and type(copied) is Record
    assert Record(1).c is not Record(1).c and Record(1).total() == 4
    assert dataclasses.replace(Record(1), a=2) == Record(2)
    assert [f.name for f in dataclasses.fields(Record)] == ["a", "b", "c"] and Record.__match_args__ == ("a", "b", "c")
    assert hash(Single((1, 2))) == hash(Single((1, 2))) and len({Single(1), Single(1), Single(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Record(1))
    for change in (lambda r: setattr(r, "a", 2), lambda r: setattr(r, "new", 2), lambda r: delattr(r, "b")):
        with pytest.raises(dataclasses.FrozenInstanceError, match="a Record is frozen"):
            change(Record(1))
    for args, named in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 1}), ((1,), {"d": 1})):
        with pytest.raises(TypeError, match=r"Record\.__init__\(\) "):
            Record(*args, **named)
    assert repr(Single(1)) == "single" and Record.__init__.__annotations__["b"] == tuple[int, ...]
    with pytest.raises(ValueError, match="a is None"):
        Single(None)
    with pytest.raises(ValueError, match="frozen must be True"):
        dataclass(frozen=False)
