"""Memory of pooling with long windows: bytes, tables, and windows that are refused before memory is taken."""

import numpy as np
import pytest
from test_pool_running import PAIRS, PLAIN, peak

from fastconv import lp_pool_backward, lp_pool_forward, max_pool_forward
from fastconv.geometry.pool import resolve_pool
from fastconv.layers.pool import kernels, plan as pool_plan, powers


@pytest.fixture
def counted(monkeypatch):
    """Results and workspaces come from NumPy, so that their bytes are counted."""
    monkeypatch.setattr("fastconv.runtime.memory.empty", lambda shape, dtype: np.empty(shape, dtype))


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("k", [40, 300, 900])
@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_bytes(forward, backward, k, stride, counted):
    """Besides the image and the results, a few MiB per thread are taken, whatever the window and the stride."""
    x = np.zeros((1, 1, 1500, 2000), np.float32)
    out, cache = forward(x, kernel_size=k, stride=stride, threads=2)
    results = out.nbytes * (2 if forward is max_pool_forward else 1)
    assert peak(lambda: forward(x, kernel_size=k, stride=stride, threads=2)) - results < 12 << 20
    dout = np.ones_like(out)
    assert peak(lambda: backward(dout, cache)) - x.nbytes < 12 << 20


@pytest.mark.parametrize("p", [1, 3, 2.5])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 100, "stride": 3},
        {"kernel_size": 900, "stride": 1},
        {"kernel_size": (450, 900), "stride": 50, "dilation": (2, 1), "pad": 400},
        {"kernel_size": 1000, "stride": 700, "pad": 999},
    ],
    ids=str,
)
def test_bytes_of_other_exponents(p, options, counted, rng):
    x = rng.standard_normal((1, 1, 1200, 1000)).astype(np.float32)
    out, cache = lp_pool_forward(x, options, p=p, threads=2)
    dout = np.ones_like(out)
    assert peak(lambda: lp_pool_forward(x, options, p=p, threads=2)) - out.nbytes < 12 << 20
    assert peak(lambda: lp_pool_backward(dout, cache)) - x.nbytes < 12 << 20


@pytest.mark.parametrize("forward", [True, False])
def test_lines_of_powers(forward):
    """On planes of 8000 x 8000, the powers in memory take some MiB, and few of them are computed three times."""
    for k in (1000, 4000, 8000):
        geometry = resolve_pool((1, 1, 8000, 8000), kernel_size=k, stride=1, pad=k // 2, dilation=1, ceil_mode=False)
        (block,) = powers._blocks(geometry, not forward)
        lines = [cut.low - cut.begin + cut.end - cut.high for cut in block.cuts]
        assert max(lines) * 8 * 8001 < 16 << 20
        assert k // block.sums[1] * 8 * 8001 < 16 << 20
        assert sum(lines) <= 2.1 * 8001


@pytest.mark.parametrize("shape", [(2, 2, 10, 10), (1, 1, 10, 1), (1, 1, 10)])
def test_huge_windows_are_refused_before_they_take_memory(shape):
    x, k = np.ones(shape), 10**9
    for forward, _ in PAIRS:
        for options in (
            {"kernel_size": k, "stride": k, "pad": k - 1},
            {"kernel_size": 3, "stride": k, "pad": k, "dilation": k - 1},
        ):

            def call(forward=forward, options=options):
                with pytest.raises(
                    ValueError,
                    match=r"MiB of workspace per thread, more than the limit of 1024 MiB; pool in"
                    r"|read no cell|can be addressed",
                ):
                    forward(x, options)

            assert peak(call) < 1 << 20


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_long_signals_need_little_memory(forward, backward, counted):
    x = np.zeros((1, 1, 4_000_000), np.float32)
    out, cache = forward(x, kernel_size=300, stride=1, threads=1)
    results = out.nbytes * (2 if forward is max_pool_forward else 1)
    assert peak(lambda: forward(x, kernel_size=300, stride=1, threads=1)) - results < 8 << 20
    assert peak(lambda: backward(out, cache)) - x.nbytes < 8 << 20


def test_windows_that_need_too_much_are_refused(monkeypatch):
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(most_bytes=1 << 20))
    x = np.zeros((1, 1, 1, 400_000), np.float32)
    with pytest.raises(
        ValueError,
        match=r"a window of 300000 cells needs \d+ MiB of workspace per thread, more than the limit of 1 MiB",
    ):
        max_pool_forward(x, kernel_size=(1, 300_000), stride=1)
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(most_bytes=1 << 20, most_float32_cells=1000))
    with pytest.raises(ValueError, match="spans more than 1000 cells of x, the limit in float32"):
        max_pool_forward(x, kernel_size=(1, 2000), stride=1)


@pytest.mark.parametrize(("spatial", "times"), [((400_000,), 1), ((400_000, 2), 2)], ids=["row", "columns"])
def test_plans_of_many_rows_are_not_kept(spatial, times, made, monkeypatch, forget):
    """The lists of columns are as long as the signal, so their plans are not kept for each length.

    The lists of a row are short.
    """
    monkeypatch.setattr(pool_plan, "TUNING", pool_plan.Tuning(most_taps=0))
    forget()
    x = np.ones((1, 1, *spatial), np.float32)
    options = {"kernel_size": [9] + [1] * (len(spatial) - 1), "stride": 1}
    geometry = resolve_pool(x.shape, **PLAIN, **options)
    results = made(kernels, "make_plan")
    for op in ("maximum", "mean", "mean_gradient"):
        for _ in range(2):
            assert str(kernels.plan_for(op, geometry, np.dtype(np.float32), 2)) == "axis by axis"
    kept = [plan for key, plan in results if [other for other, _ in results].count(key) == 1]
    assert len(results) == 3 * times and sum(plan.nbytes for plan in kept) < 1 << 20
