"""Plans of poolings and normalisations: which kernel they name, and when a later call uses them again."""

import numpy as np
import pytest

import fastconv
from fastconv import layers
from fastconv.geometry.pool import resolve_pool
from fastconv.layers.norm import batchnorm, groupnorm, response
from fastconv.layers.norm.kernels import GroupNormForward, NormSizes, plan_norm
from fastconv.layers.pool import global_pooling, lp_pooling, pooling
from fastconv.layers.pool.kernels import KERNELS, plan_for
from fastconv.layers.pool.plan import INT64, PoolCase
from fastconv.runtime import isa as _isa

F32 = np.dtype(np.float32)
BOTH = ("maximum", "mean")


def pool(shape, **options):
    return resolve_pool(shape, **{"stride": None, "pad": 0, "dilation": 1, "ceil_mode": False, **options})


@pytest.mark.parametrize(
    ("shape", "options", "ops", "kernel"),
    [
        ((0, 3, 8, 8), {"kernel_size": 2}, ("maximum", "mean", "norm", "maximum_gradient"), "nothing"),
        ((2, 3, 8, 8), {"kernel_size": 8}, (*BOTH, "mean_gradient"), "whole planes"),
        ((2, 3, 8, 8), {"kernel_size": 2}, (*BOTH, "norm", "mean_gradient", "norm_gradient"), "2x2 stride-2 kernel"),
        ((2, 3, 8, 40), {"kernel_size": 2}, ("maximum_gradient",), "checked(2x2 stride-2 kernel, else scatter)"),
        ((2, 3, 8, 8), {"kernel_size": 2}, ("maximum_gradient",), "scatter"),
        ((2, 3, 8, 8), {"kernel_size": 3, "pad": 1, "stride": 1}, (*BOTH, "norm", "mean_gradient"), "rows"),
        ((2, 3, 90, 90), {"kernel_size": 9, "stride": 1}, ("maximum_gradient",), "checked(bands, else scatter)"),
        ((2, 3, 90, 90), {"kernel_size": 60, "stride": 1}, (*BOTH, "norm", "mean_gradient"), "axis by axis"),
    ],
)
def test_plans_name_their_kernel(shape, options, ops, kernel):
    for op in ops:
        plan = plan_for(op, pool(shape, **options), F32, 2)
        assert str(plan) == kernel
        assert plan is plan_for(op, pool(shape, **options), F32, 2)


def test_places_of_64_bits_have_fewer_kernels():
    for kernel_size in (2, 3, 8):
        plan = plan_for("maximum", pool((2, 3, 8, 8), kernel_size=kernel_size), F32, 1, index_dtype=INT64)
        assert str(plan) == "axis by axis"


@pytest.mark.parametrize("op", ["maximum", "mean", "norm", "maximum_gradient", "mean_gradient", "norm_gradient"])
def test_kernels_say_what_they_do_not_support(op):
    case = PoolCase(op, pool((2, 3, 9, 9), kernel_size=3, stride=2), F32, 1, _isa.current)
    reasons = [kernel.unsupported(case) for kernel in KERNELS]
    assert None in reasons and all(
        reason is None or (reason and kernel.name) for reason, kernel in zip(reasons, KERNELS, strict=True)
    )


def test_other_exponents_have_a_plan_of_their_own():
    assert str(lp_pooling.plan_norm(pool((1, 1, 4), kernel_size=2), F32, 3.0, 1)) == "powers"


def stored(calls, *key):
    return calls.tables[fastconv.get_threads(), _isa.current].get(*key)


def test_a_call_of_a_pooling_has_its_plan_ready(forget):
    x = np.arange(32.0, dtype=np.float32).reshape(1, 2, 4, 4)
    for _ in range(2):
        layers.max_pool_forward(x, 2)
        layers.avg_pool_forward(x, {"kernel_size": 3, "stride": 1})
        layers.global_avg_pool_forward(x)
    assert str(stored(pooling._max_pool, (x,), {"kernel_size": 2}).plan) == "2x2 stride-2 kernel"
    assert str(stored(pooling._avg_pool, (x,), {"kernel_size": 3, "stride": 1}).plan) == "rows"
    assert str(stored(global_pooling._global_avg_pool, (x,), {}).plan) == "whole planes"


def test_plans_that_may_change_or_are_large_are_made_on_each_call(forget):
    x = np.ones((1, 1, 4, 4), np.float32)
    layers.max_pool_forward(x, 2, threads=-1)
    assert stored(pooling._max_pool, (x,), {"kernel_size": 2, "threads": -1}).plan is None
    column = np.ones((1, 1, 400_000, 2), np.float32)
    options = {"kernel_size": (60, 1), "stride": 1, "threads": 1}
    layers.avg_pool_forward(column, **options)
    assert stored(pooling._avg_pool, (column,), options).plan is None


def test_a_call_of_a_normalisation_has_its_plan_ready(forget, rng):
    x, gamma, beta = rng.standard_normal((4, 6, 5)), np.ones(6), np.zeros(6)
    for _ in range(2):
        layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
        layers.spatial_groupnorm_forward(x, gamma, beta, 3)
        layers.layernorm_forward(x[:, :, 0].copy(), gamma, beta)
        layers.lrn_forward(x, {"size": 3})
    arrays = x, gamma, beta
    assert str(stored(batchnorm._images, arrays, {}).plan) == "channels"
    assert str(stored(groupnorm._images, arrays, {"G": 3}).plan) == "groups"
    rows = x[:, :, 0].copy(), gamma, beta
    assert str(stored(groupnorm._vectors, rows, {"G": 1}).plan) == "rows"
    assert str(stored(response._calls, (x,), {"size": 3}).plan) == "neighbouring channels"


def test_a_stored_call_checks_what_its_key_does_not_have(rng):
    x, gamma, beta = rng.standard_normal((4, 6)), np.ones(6), np.zeros(6)
    layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})
    with pytest.raises(ValueError, match="running_mean has shape"):
        layers.batchnorm_forward(x, gamma, beta, {"mode": "train", "running_mean": np.zeros(5)})
    with pytest.raises(ValueError, match="eps"):
        layers.batchnorm_forward(x, gamma, beta, {"mode": "train", "eps": -1})
    layers.spatial_groupnorm_forward(x[:, :, None], gamma, beta, 1)
    with pytest.raises(TypeError, match="G"):
        layers.spatial_groupnorm_forward(x[:, :, None].copy(), gamma, beta, True)
    with pytest.raises(ValueError, match="G"):
        layers.spatial_groupnorm_forward(x[:, :, None].copy(), gamma, beta, 4)


def test_a_plan_belongs_to_a_thread_count():
    sizes = NormSizes.of((4, 6, 5), 3)
    with fastconv.threads(1):
        one = plan_norm(GroupNormForward, sizes, F32)
    with fastconv.threads(2):
        two = plan_norm(GroupNormForward, sizes, F32)
        assert plan_norm(GroupNormForward, sizes, F32) is two
    assert (one.threads, two.threads) == (1, 2) and one.items == 12
