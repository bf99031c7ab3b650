"""No argument and no cache makes fastconv read or write out of bounds. `forged.py` contains the cases."""

import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import forged
import numpy as np
import pytest

from fastconv import conv_geometry, layers
from fastconv.compat import cs231n, deeplearning_ai
from fastconv.geometry import fractional as _fractional
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import CONV_DEFAULTS, ConvGeometry
from fastconv.geometry.pool import PoolGeometry, resolve_pool
from fastconv.geometry.transpose import TRANSPOSE_DEFAULTS, resolve_transpose

#: The minimum numbers of cases of each family that raise an error and that give right gradients. A smaller number means
#: that a check or the table is missing.
LEAST = {
    "conv": (2500, 100),
    "algorithms": (1800, 80),
    "pools": (2300, 25),
    "norms": (600, 60),
    "others": (1900, 200),
    "cs231n": (1200, 400),
    "deeplearning_ai": (180, 50),
    "arguments": (110, 250),
}


@pytest.mark.parametrize("family", LEAST)
def test_refused_or_right(family):
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", Path(forged.__file__), family],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    last = "\n".join(done.stdout.splitlines()[-2:])
    assert done.returncode == 0, f"{done.returncode} after:\n{last}\n{done.stderr[-2000:]}"
    counts = tuple(map(int, re.fullmatch(r"(\d+) refused, (\d+) right", last.splitlines()[-1]).groups()))
    assert all(map(int.__ge__, counts, LEAST[family])), counts


def test_every_pair_is_there():
    assert set(LEAST) == {*forged.FAMILIES, "arguments"}
    tried = [backward for family in forged.FAMILIES.values() for _, _, backward in family]
    for module in (layers, cs231n, deeplearning_ai):
        for name in module.__all__:
            function = getattr(module, name)
            if "backward" in name and "cache" in inspect.signature(function).parameters and name != "pool_backward":
                assert function in tried, f"{module.__name__}.{name}"


CONV = conv_geometry((2, 4, 7, 8), (6, 2, 3, 3), groups=2, stride=2, pad=1)
POOL = resolve_pool((2, 4, 7, 8), kernel_size=2, stride=2, pad=0, dilation=1, ceil_mode=True)
TRANSPOSE = resolve_transpose((2, 4, 7, 8), (4, 3, 3, 3), **{**TRANSPOSE_DEFAULTS, "stride": 2, "output_pad": 1})
FRACTIONAL = _fractional.resolve_sampled((2, 4, 7, 8), (6, 4, 3, 3), {**CONV_DEFAULTS, "stride": forged.Fraction(3, 2)})
GEOMETRIES = [CONV, POOL, TRANSPOSE, FRACTIONAL]
ONE_OUT_MORE = dataclasses.replace(CONV.axes[1], out=CONV.axes[1].out + 1)


@pytest.mark.parametrize(
    ("geometry", "changes"),
    [
        (CONV, {"groups": 1}),
        (CONV, {"groups": 2**62}),
        (CONV, {"groups": True}),
        (CONV, {"x_shape": (2, 4, 7, 9)}),
        (CONV, {"x_shape": [2, 4, 7, 8]}),
        (CONV, {"x_shape": (2**40, 4, 2**40, 8)}),
        (CONV, {"w_shape": (6, 2, 3, 2)}),
        (CONV, {"w_shape": (5, 2, 3, 3)}),
        (CONV, {"axes": CONV.axes[:1]}),
        (CONV, {"axes": (CONV.axes[0], ONE_OUT_MORE)}),
        (CONV, {"axes": (CONV.axes[0], dataclasses.replace(CONV.axes[1], lo=-1))}),
        (CONV, {"axes": (CONV.axes[0], dataclasses.replace(CONV.axes[1], hi=2**62))}),
        (CONV, {"axes": (CONV.axes[0], dataclasses.replace(CONV.axes[1], stride=0))}),
        (CONV, {"pad_mode": "mirrors"}),
        (CONV, {"flip": None}),
        (POOL, {"x_shape": (2, 4, 7, 9)}),
        (POOL, {"x_shape": (2, 0, 7, 8)}),
        (POOL, {"axes": (POOL.axes[0], dataclasses.replace(POOL.axes[1], out=5))}),
        (POOL, {"axes": (dataclasses.replace(POOL.axes[0], out=5), POOL.axes[1])}),
        (POOL, {"axes": (dataclasses.replace(POOL.axes[0], lo=2), POOL.axes[1])}),
        (TRANSPOSE, {"x_shape": (2, 4, 7, 7)}),
        (TRANSPOSE, {"w_shape": (4, 3, 3, 2)}),
        (TRANSPOSE, {"out_shape": (2, 3, 16, 99)}),
        (TRANSPOSE, {"out_shape": (2, 4, 16, 18)}),
        (TRANSPOSE, {"conv": POOL}),
        (FRACTIONAL, {"x_shape": (2, 4, 7, 7)}),
        (FRACTIONAL, {"up": (2, 1)}),
        (FRACTIONAL, {"up": (2,)}),
        (FRACTIONAL, {"upsampled": CONV}),
    ],
)
def test_fields_that_do_not_fit_are_refused(geometry, changes):
    kind = type(geometry).__name__
    with pytest.raises(ValueError, match=f"the fields of this {kind} do not fit each other: ."):
        dataclasses.replace(geometry, **changes)
    # The same change through a pickle, in both formats of pickled state.
    state = {field.name: getattr(geometry, field.name) for field in dataclasses.fields(geometry)} | changes
    for parts in ((type(geometry), tuple(state.values())), (object.__new__, (type(geometry),), state)):
        with pytest.raises(ValueError, match=f"the fields of this {kind}"):
            pickle.loads(pickle.dumps(Reduced(parts)))


class Reduced:
    """An object whose pickle consists of the given parts."""

    def __init__(self, parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: type(geometry).__name__)
def test_copies_are_equal_and_know_nothing(geometry):
    assert dataclasses.replace(geometry) == geometry
    vars(geometry)["_told"] = "something that is kept beside the fields"
    copy = pickle.loads(pickle.dumps(geometry))
    assert copy == geometry and type(copy) is type(geometry)
    assert "_told" not in vars(copy)
    old = object.__new__(type(geometry))  # The way in which Python restores pickles of earlier versions.
    with pytest.raises(ValueError, match=r"has no \w+: it was not made by its constructor"):
        repr(old)
    assert not hasattr(old, "_told")
    old.__setstate__(dict(vars(geometry)))
    assert old == geometry and "_told" not in vars(old)


def test_caches_from_pickles_work():
    x, w = forged.floats(2, 4, 7, 8), forged.floats(6, 2, 3, 3)
    out, cache = layers.conv_forward(x, w, None, groups=2, stride=2, pad=1)
    _, pooled = layers.max_pool_forward(x, kernel_size=2)
    again, pooled_again = pickle.loads(pickle.dumps((cache, pooled)))
    for one, other in zip(layers.conv_backward(out, cache)[:2], layers.conv_backward(out, again)[:2], strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(layers.max_pool_indices(pooled), layers.max_pool_indices(pooled_again))


def test_what_is_derived_is_what_the_constructor_makes():
    for one, other in (
        (CONV.for_batch(5), conv_geometry((5, 4, 7, 8), (6, 2, 3, 3), groups=2, stride=2, pad=1)),
        (CONV.padded, conv_geometry((2, 4, 9, 10), (6, 2, 3, 3), groups=2, stride=2)),
    ):
        assert one == other
        assert ConvGeometry(one.x_shape, one.w_shape, one.axes, one.groups, one.pad_mode, one.flip) == one
    assert PoolGeometry((1, 3, 7, 8), POOL.axes) == POOL.for_planes(3)


def test_axes_are_of_the_type_itself():
    class Other(Axis):
        pass

    axis = CONV.axes[1]
    other = Other(*(getattr(axis, field.name) for field in dataclasses.fields(axis)))
    with pytest.raises(ValueError, match="axes must be a tuple of 2 Axis"):
        dataclasses.replace(CONV, axes=(CONV.axes[0], other))
