"""The plan cache: it finds earlier plans, drops the least recently used one, and does not keep large results."""

import numpy as np
import pytest

import fastconv
from fastconv import conv
from fastconv.convolution.dispatch import plan_for
from fastconv.layers import calls
from fastconv.runtime import plan_cache as _plan_cache
from fastconv.runtime.plan_cache import PlanCache


def square(n):
    square.made.append(n)
    return n * n


@pytest.fixture(autouse=True)
def none_made():
    square.made = []


def test_it_is_bounded_and_drops_the_least_recently_used():
    cache = PlanCache(3, 3)
    for n in (1, 2, 3, 1, 4, 1, 2):
        assert cache.find(square, n) == n * n
    assert square.made == [1, 2, 3, 4, 2]
    cache.clear()
    assert cache.find(square, 1) == 1 and square.made == [1, 2, 3, 4, 2, 1]


def test_large_results_are_made_anew():
    cache = PlanCache()
    for n in (10, 1000, 10, 1000):
        assert cache.find_sized(size, square, n) == n * n
    assert square.made == [10, 1000, 1000]


def size(found):
    return found  # The sizes are 100 and 1,000,000 bytes.


def test_types_tell_equal_arguments_apart():
    cache = PlanCache()
    assert [cache.find_typed(square, n) for n in (1, True, 1.0, 1, True)] == [1] * 5
    assert list(map(type, square.made)) == [int, bool, float]


def test_one_function_clears_geometries_plans_and_calls():
    x, w = np.ones((1, 1, 5)), np.ones((1, 1, 2))
    geometries = [fastconv.conv_forward(x, w, None)[1].geometry for _ in range(2)]
    assert geometries[0] is geometries[1] is resolve(x.shape, w.shape)
    calls.clear()
    assert geometries[0] == resolve(x.shape, w.shape)
    assert geometries[0] is not resolve(x.shape, w.shape) is fastconv.conv_forward(x, w, None)[1].geometry


def resolve(x_shape, w_shape):
    return fastconv.conv_geometry(x_shape, w_shape)


def test_errors_are_not_kept():
    cache, calls = PlanCache(), []

    def fail(n):
        calls.append(n)
        raise ValueError(n)

    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            cache.find(fail, 1)
    assert calls == [1, 1]


def test_equal_geometries_share_plans_and_hold_none():
    """Geometries are values: a copy finds the plan of the original, and neither holds anything else."""
    options = {"pad": 1, "pad_mode": "reflect", "flip": True}
    geometry = fastconv.conv_geometry((1, 2, 9, 9), (3, 2, 3, 3), **options)
    case = np.dtype(np.float32), "auto", 1
    plan = plan_for("forward", geometry, *case)
    assert plan_for("forward", geometry.derive(), *case) is plan
    assert plan_for("forward", geometry.derive(flip=False), *case) is not plan
    conv(np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3)), **options)
    str(geometry)
    assert set(vars(geometry)) == {*geometry.__dataclass_fields__, *geometry._DERIVED}


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("conv", (np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3)), None), {"stride": 2, "pad": 1, "pad_mode": "circular"}),
        ("conv", (np.ones((1, 2, 9)), np.ones((3, 2, 3)), None), {"upsample": 3, "stride": 2}),
        ("conv_transpose", (np.ones((1, 2, 9)), np.ones((2, 3, 2)), None), {"stride": 3, "output_pad": 2}),
        ("max_pool", (np.ones((1, 2, 9, 9)),), {"kernel_size": 3, "stride": 1}),
        ("avg_pool", (np.ones((1, 2, 9, 1)),), {"kernel_size": (3, 1), "ceil_mode": True}),
    ],
)
def test_calls_hang_nothing_onto_a_geometry(name, args, options):
    out, cache = getattr(fastconv, f"{name}_forward")(*args, **options)
    getattr(fastconv, f"{name}_backward")(np.ones_like(out), cache)
    geometry = cache.geometry
    assert set(vars(geometry)) == {*geometry.__dataclass_fields__, *geometry._DERIVED}
    with pytest.raises(ValueError, match=f"has no {geometry._DERIVED[-1]}"):
        getattr(object.__new__(type(geometry)), geometry._DERIVED[-1])


def test_a_limit_of_bytes_is_the_same_for_all():
    assert not _plan_cache.is_large(1 << 19) and _plan_cache.is_large((1 << 19) + 1)
