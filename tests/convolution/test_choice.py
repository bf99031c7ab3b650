"""The choice among algorithms: rates by kind of CPU, algorithms without rates, and the algorithm that is taken."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from cases import cost_of, plan_of
from conftest import forget_geometries

import fastconv
from fastconv.convolution import choose as algorithms
from fastconv.convolution.cost import model as _model, pricing as _pricing, rates as _rates
from fastconv.convolution.plan import OPS, Case
from fastconv.runtime import blas as _blas, isa as _isa

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

FLOAT = np.dtype(np.float32)
#: The kinds of CPU whose rates are in the package and whose kernels this CPU can run.
KINDS = [kind for kind in _rates.kinds() if _rates.split(kind)[2] in _isa.usable()]


@pytest.fixture
def use(monkeypatch):
    """A function that puts the rates of a kind of CPU in use, under the instruction set of that kind."""
    monkeypatch.setattr(_rates, "_loaded", {})
    forget_geometries()

    def by(rates, isa=None):
        if isa is not None:
            monkeypatch.setattr(_isa, "current", _isa.NAMES.index(isa))
        _rates.use(rates if isinstance(rates, _rates.Measured) else _rates.Measured(rates, 3.0))
        forget_geometries()

    yield by
    forget_geometries()


@pytest.fixture
def benchmarks(monkeypatch):
    """Makes the modules of benchmarks importable, and restores the threads that they set."""
    for name in ("matplotlib", "rich", "scipy"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with pytest.importorskip("threadpoolctl").threadpool_limits({"blas": _blas.threads() or 1}):
        yield
    fastconv.set_threads(None)


@pytest.mark.parametrize(
    ("kind", "among", "expected"),
    [
        ("AuthenticAMD-26-avx512", ["AuthenticAMD-25-avx512", "AuthenticAMD-26-avx512"], "AuthenticAMD-26-avx512"),
        # The same maker and instruction set: the nearest family, and of two equally near ones the newer.
        (
            "AuthenticAMD-27-avx2",
            ["AuthenticAMD-23-avx2", "AuthenticAMD-26-avx2", "GenuineIntel-6-avx2"],
            "AuthenticAMD-26-avx2",
        ),
        ("AuthenticAMD-24-avx2", ["AuthenticAMD-23-avx2", "AuthenticAMD-25-avx2"], "AuthenticAMD-25-avx2"),
        # The instruction set counts more than the maker.
        ("GenuineIntel-6-avx512", ["GenuineIntel-6-avx2", "AuthenticAMD-26-avx512"], "AuthenticAMD-26-avx512"),
        # An unknown CPU comes before a CPU of another maker.
        ("GenuineIntel-6-avx2", ["AuthenticAMD-26-avx2", "generic-0-avx2"], "generic-0-avx2"),
        # For another instruction set, AVX2 comes first.
        ("generic-0-baseline", ["AuthenticAMD-26-avx512", "AuthenticAMD-26-avx2"], "AuthenticAMD-26-avx2"),
        ("AuthenticAMD-26-avx512", ["AuthenticAMD-26-avx2", "GenuineIntel-6-avx2"], "AuthenticAMD-26-avx2"),
        ("AuthenticAMD-26-avx512", [], None),
    ],
)
def test_the_nearest_kind_of_cpu_serves(kind, among, expected):
    assert _rates.nearest(kind, among) == expected
    assert _rates.nearest(kind, reversed(among)) == expected


def test_this_cpu_has_a_kind_and_rates():
    vendor, family, isa = _rates.split(_isa.kind())
    assert vendor and family >= 0 and isa == _isa.NAMES[_isa.current]
    info = Path("/proc/cpuinfo")
    told = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    told = {key.strip(): value.strip() for key, value in told.items()}
    if "vendor_id" in told:
        assert (vendor, family) == (told["vendor_id"], int(told["cpu family"]))
    assert _rates.nearest(_isa.kind(), _rates.kinds()) in _rates.kinds()


@pytest.mark.parametrize("kind", _rates.kinds())
def test_files_have_rates_of_the_work_there_is(kind, use):
    about = _rates.load(kind)
    assert about["fastconv"] and about["cases"] > 100
    for name, ops in about["rates"].items():
        assert set(ops) <= set(OPS)
        assert all(rate >= 0 and math.isfinite(rate) for kinds in ops.values() for rate in kinds.values())
        geometry = fastconv.conv_geometry((2, 4, 12, 12), (4, 1, 3, 3), pad=1, groups=4)
        if name in algorithms.REGISTRY and not algorithms.REGISTRY[name].unsupported(
            Case.of("forward", geometry, FLOAT)
        ):
            use(about["rates"])
            # "wakes" and "vector_far" are never fitted, and files of older fits lack the other two.
            optional = {"wakes", "vector_far", "fetched", "scattered"}
            for op in ops:
                work = plan_of(name, Case.of(op, geometry, FLOAT, 2)).work
                assert set(work) - optional <= set(ops[op]) and all(amount >= 0 for amount in work.values())
                assert math.isfinite(_model.seconds(name, op, work))


def test_what_was_not_measured_is_taken_only_where_nothing_else_serves(use):
    layer, op = fastconv.conv_geometry((4, 32, 28, 28), (32, 32, 3, 3), pad=1), "forward"
    rates = dict(_rates.in_use())
    assert algorithms.choose(Case.of(op, layer, FLOAT, 2)).algorithm == "winograd"
    use({name: of for name, of in rates.items() if name != "winograd"})
    layer = fastconv.conv_geometry((4, 32, 28, 28), (32, 32, 3, 3), pad=1)
    assert algorithms.choose(Case.of(op, layer, FLOAT, 2)).algorithm == "implicit"
    assert cost_of("winograd", Case.of(op, layer, FLOAT, 2)) == math.inf
    text = fastconv.explain((4, 32, 28, 28), (32, 32, 3, 3), pad=1)
    assert re.search(r"winograd +- +-  it was not measured on this kind of CPU", text)
    # An algorithm with a kind of work that has no rate counts as unmeasured.
    broken = {**rates["implicit"], op: {k: v for k, v in rates["implicit"][op].items() if k != "product"}}
    use({**rates, "implicit": broken})
    layer = fastconv.conv_geometry((1, 8, 9, 9), (8, 8, 1, 1))
    assert cost_of("implicit", Case.of(op, layer, FLOAT, 2)) == math.inf
    # If nothing was measured, the definition by loops still is not taken.
    use({})
    layer = fastconv.conv_geometry((4, 32, 28, 28), (32, 32, 3, 3), pad=1)
    for op in OPS:
        assert algorithms.choose(Case.of(op, layer, FLOAT, 2)).algorithm == "implicit"
    x, w = (np.random.default_rng(0).standard_normal(shape, FLOAT) for shape in ((4, 32, 28, 28), (32, 32, 3, 3)))
    expected = fastconv.conv(x, w, pad=1, algorithm="exact")
    np.testing.assert_allclose(fastconv.conv(x, w, pad=1), expected, rtol=0, atol=1e-3)


#: Geometries from issue reports, and the algorithms that are fastest there according to all measured rates.
NAMED = [
    ((1, 1, 512, 512), (1, 1, 129, 129), {"pad": 64}, "forward", {"fft"}),
    ((1, 1, 1024, 1024), (1, 1, 63, 63), {"pad": 31}, "forward", {"fft"}),
    ((1, 1, 256, 256), (1, 1, 129, 129), {"pad": 64}, "forward", {"fft"}),
    ((1, 1, 1_000_000), (1, 1, 4001), {"pad": 2000}, "forward", {"fft"}),
    ((1, 64, 16000), (64, 64, 1024), {"pad": 512}, "forward", {"fft", "implicit"}),
    ((1, 1, 134, 284, 284), (1, 1, 25, 25, 25), {}, "forward", {"fft"}),
    ((735, 53, 3, 3), (8, 53, 3, 3), {"pad": 1}, "forward", {"winograd"}),
    ((1, 1, 27, 27, 27), (1, 1, 15, 15, 15), {}, "forward", {"implicit", "depthwise", "fft"}),
    ((1, 1, 7825), (23, 1, 28), {"stride": 2}, "backward_weights", {"implicit", "winograd", "fft"}),
    ((1, 1, 52, 52, 52), (1, 1, 9, 9, 9), {}, "backward_data", {"implicit", "depthwise", "fft"}),
    ((3, 3, 54, 54), (5, 3, 17, 17), {}, "forward", {"implicit", "fft"}),
    ((1, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "pad": 3}, "forward", {"implicit", "winograd"}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "w", "options", "op", "expected"), NAMED)
def test_named_geometries(kind, x, w, options, op, expected, use):
    use(_rates.measured_on(kind), _rates.split(kind)[2])
    geometry = fastconv.conv_geometry(x, w, **options)
    assert algorithms.choose(Case.of(op, geometry, FLOAT, 2)).algorithm in expected


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((16, 64, 56, 56), (64, 64, 3, 3), {"pad": 1}),
        ((1, 4, 20, 20), (4, 4, 3, 3), {"pad": 1}),
        ((2, 3, 60, 60), (3, 1, 31, 31), {"pad": 15, "groups": 3, "pad_mode": "circular"}),
        ((1, 2, 20, 20, 20), (3, 2, 5, 5, 5), {}),
    ],
)
def test_explain_tells_the_costs_of_the_model_and_why_a_cheaper_one_is_passed_over(x, w, options, op):
    geometry, threads = fastconv.conv_geometry(x, w, **options), 2
    text = fastconv.explain(x, w, op=op, threads=threads, **options)
    rows = {}
    for line in text.splitlines()[next(i for i, s in enumerate(text.splitlines()) if "algorithm " in s) + 1 : -1]:
        name, cost, _, *reason = line.removeprefix("->").split(maxsplit=3)
        rows[name] = (None if cost == "-" else float(cost)), " ".join(reason)
    case = Case.of(op, geometry, FLOAT, threads)
    costs = {n: cost_of(n, case) for n, (c, _) in rows.items() if c is not None}
    if 1 << 17 <= geometry.flops // 2 < 1 << 20:  # the margin of transforms
        costs = {n: c / (0.75 if n in ("fft", "winograd") else 1) for n, c in costs.items()}
    least = min(costs.values())
    for name, cost in costs.items():
        assert rows[name][0] == pytest.approx(cost / least, abs=0.006)
    chosen = algorithms.choose(case).algorithm
    for name, cost in costs.items():
        if cost < costs[chosen]:
            assert rows[name][1].startswith(("not by 'auto'", "only where")), name


@pytest.mark.usefixtures("benchmarks")
def test_families_draw_legal_geometries_by_their_seed():
    from support import families

    count = 6 * len(families.FAMILIES)
    first, again, other = (list(itertools.islice(families.draw_cases(seed), count)) for seed in (5, 5, 6))
    assert first == again and not set(first) & set(other)
    assert {case.family for case in first} == set(families.FAMILIES)
    assert len({(case.op, case.dtype, case.threads) for case in first}) == 12
    for case in first:
        assert case.geometry.out_shape[1] == case.w_shape[0] and all(case.geometry.out_shape)
        assert families.from_json(json.loads(json.dumps(case.as_json()))) == case
        if math.prod(case.w_shape) > 1 << 18:
            continue
        w = case.weights()
        assert w.shape == case.w_shape and w.dtype == case.dtype and np.isfinite(w).all()
        share = np.count_nonzero(w) / w.size
        assert 0 < share <= 0.8 if case.zeros else share == 1
        if case.pattern == "rank one":
            for kernel in w.reshape(-1, *case.w_shape[2:])[:2]:
                for axis in range(kernel.ndim):
                    rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
                    assert np.linalg.svd(rows, compute_uv=False)[1:].sum() < 1e-4 * np.abs(rows).sum()


@pytest.mark.usefixtures("benchmarks")
def test_a_fit_finds_the_rates_that_made_the_times(tmp_path, use):
    from support import families, fit, turns

    rates = _rates.in_use()
    cases = [case for case in itertools.islice(families.draw_cases(3), 240) if case.op == "forward"]
    records = turns.Records(tmp_path / "times.jsonl")
    rng = np.random.default_rng(0)
    for case in cases:
        record = turns.Record(case)
        names = [n for n in turns.candidates(case) if n in ("implicit", "depthwise", "winograd") and n in rates]
        for name in names:
            record.seconds[name] = _model.seconds(name, "forward", fit.work_of(record, name)) * rng.uniform(0.99, 1.01)
        records.add(record)
    again = turns.Records(records.path)
    assert again.cases() == records.cases()
    for case in again.cases():
        assert again.get(case).seconds == pytest.approx(records.get(case).seconds, rel=1e-4)
    found = fit.Search(fit.table(list(records.found.values()), "forward")).run()
    off = []
    for record in records.found.values():
        for name, took in record.seconds.items():
            estimate = sum(found[name][kind] * amount for kind, amount in fit.work_of(record, name).items()) * 1e-9
            off.append(abs(math.log(estimate / took)))
    assert np.median(off) < 0.05 and np.quantile(off, 0.95) < 0.2
    # The largest rate itself is recovered, not only a sum of rates.
    product = rates["implicit"]["forward"]["product"]
    assert found["implicit"]["product"] == pytest.approx(product, rel=0.15)


@pytest.mark.usefixtures("benchmarks")
def test_a_fit_finds_the_correction_of_times():
    """Times are the work times one rate, and 1.6 times as long for few filters, which no rate explains."""
    from support import families, fit, turns

    records = []
    for case in itertools.islice(families.draw_cases(4, threads=(1,)), 420):
        if case.op == "forward" and case.groups == 1:
            work = fit.work_of(turns.Record(case), "implicit")["product"]
            records.append(turns.Record(case, {"implicit": 1e-9 * work * (1.6 if case.w_shape[0] <= 8 else 1)}))
    data = fit.table(records, "forward")
    rates = {"implicit": {"forward": dict.fromkeys(data.kinds["implicit"], 0.0) | {"product": 1.0}}}
    correction = fit.correct({"forward": data}, rates)
    off = {True: [], False: []}
    for record in records:
        estimate = 1e-9 * fit.work_of(record, "implicit")["product"]
        factor = correction.factor("implicit", fit.plan_case(record))
        off[record.case.w_shape[0] <= 8].append(abs(math.log(factor * estimate / record.seconds["implicit"])))
    assert len(off[True]) > 20 and len(off[False]) > 20
    assert np.mean(off[True]) < 0.1 and np.mean(off[False]) < 0.1


@pytest.mark.usefixtures("benchmarks")
def test_boosting_fits_a_product_of_two_conditions():
    from support import boosting

    rng = np.random.default_rng(0)
    features = rng.uniform(0, 10, (400, 3))
    target = np.where((features[:, 0] > 4) & (features[:, 2] > 6), 0.6, -0.2)
    boosted, estimate = boosting.Boosting(features), np.zeros(400)
    for _ in range(boosting.COUNT):
        estimate += boosted.add(target - estimate, np.ones(400))
    assert np.abs(target - estimate).mean() < 0.05
    trees = boosted.result()
    assert trees.features.shape == (boosting.COUNT, boosting.DEPTH)
    for i in range(20):
        assert trees.value(features[i]) == pytest.approx(estimate[i])
    # A feature without a threshold is never used.
    boosted = boosting.Boosting(np.stack([np.ones(400), features[:, 0]], axis=1))
    boosted.add(target, np.ones(400))
    assert set(boosted.result().features.ravel()) == {1}


@pytest.mark.usefixtures("benchmarks")
def test_the_gradient_of_the_fit_is_that_of_its_loss():
    from support import families, fit, turns

    rng = np.random.default_rng(0)
    records = []
    for case in itertools.islice(families.draw_cases(6), 60):
        names = [n for n in turns.candidates(case) if n in ("implicit", "depthwise", "fft")]
        records.append(turns.Record(case, {name: math.exp(rng.uniform(-9, -6)) for name in names}))
    search = fit.Search(fit.table(records, "forward"))
    values = search.start()
    _, gradient = search.loss(values, 0.4)
    for i in rng.choice(len(values), 20, replace=False):
        step = np.zeros(len(values))
        step[i] = 1e-5
        slope = (search.loss(values + step, 0.4)[0] - search.loss(values - step, 0.4)[0]) / 2e-5
        assert slope == pytest.approx(gradient[i], rel=1e-3, abs=1e-7)


@pytest.mark.usefixtures("benchmarks")
def test_records_forget_an_algorithm_and_keep_the_others(tmp_path):
    from support import families, turns

    path = tmp_path / "times.jsonl"
    records = turns.Records(path)
    case = next(families.draw_cases(1))
    records.add(turns.Record(case, {"winograd 6 3x3": 1e-3, "fft": 2e-3}, {"implicit": 0.5}))
    records.forget(["winograd"])
    for known in (records, turns.Records(path)):
        record = known.get(case)
        assert record.seconds == {"fft": 2e-3} and record.given_up == {"implicit": 0.5}


@pytest.mark.parametrize(
    ("images", "cost", "taken"), [(462, 0.7, True), (462, 0.8, False), (100, 0.1, False), (8000, 0.99, True)]
)
def test_a_small_case_uses_a_transform_only_if_it_is_clearly_cheaper(images, cost, taken, monkeypatch):
    """From 2**17 multiply-adds on by a margin, from 2**20 on without."""
    monkeypatch.setattr(_pricing, "cost", lambda plan: cost if plan.algorithm == "winograd" else 1.0)
    forget_geometries()
    case = Case.of("forward", fastconv.conv_geometry((images, 32, 3, 3), (1, 32, 3, 3), stride=2), FLOAT, 1)
    assert (algorithms.choose(case).algorithm == "winograd") == taken
    forget_geometries()


@pytest.mark.usefixtures("benchmarks")
def test_a_doubtful_case_is_timed_again_and_its_least_times_count(monkeypatch):
    import bench_choice
    from support import families, turns

    case = next(families.draw_cases(1))
    record = turns.Record(case, {"auto": 8e-3, "fft": 1e-3, "im2col": 1.9e-3, "winograd": 3e-3}, {"depthwise": 1.0})
    assert bench_choice.regret(record) > bench_choice.MUCH

    def measure(again, names, rounds, near):
        assert again == case and set(names) == {"auto", "fft", "im2col"} and rounds == 5 and near == math.inf
        return turns.Record(case, {"auto": 1.2e-3, "fft": 1.1e-3, "im2col": 2e-3})

    monkeypatch.setattr(bench_choice, "measure", measure)
    monkeypatch.setattr(bench_choice, "chosen_of", lambda record: "depthwise")
    found = bench_choice.judge_again(record)
    assert found.seconds == {"auto": 1.2e-3, "fft": 1e-3, "im2col": 1.9e-3, "winograd": 3e-3}
    assert found.given_up == {"depthwise": 1.0} and bench_choice.regret(found) <= bench_choice.MUCH
    assert record.seconds["auto"] == 8e-3
    monkeypatch.setattr(bench_choice, "chosen_of", lambda record: "fft")
    assert bench_choice.judge_again(record).seconds["auto"] == 1e-3 + bench_choice.LOOK
    monkeypatch.setattr(bench_choice, "chosen_of", lambda record: "im2col")
    assert bench_choice.judge_again(record).seconds["im2col"] == 1.2e-3


@pytest.mark.usefixtures("benchmarks")
def test_a_fit_takes_the_cases_of_earlier_choices_on_this_kind_of_cpu(tmp_path):
    import fit_costs
    from support import families, turns

    cases = list(itertools.islice(families.draw_cases(1), 3))
    for kind, case in zip(("ours", "ours", "other"), cases, strict=True):
        row = turns.Record(case, {"auto": 2e-3, "fft": 1e-3}, {"im2col": 0.5}).as_json()
        path = tmp_path / f"bench_choice_{kind}_{case.family}.json"
        path.write_text(json.dumps({"kind": kind, "cases": [row]}))
    records = turns.Records(tmp_path / "times.jsonl")
    records.add(turns.Record(cases[0], {"fft": 3e-3}))
    assert fit_costs.add_choices(records, "ours", tmp_path) == 1
    assert records.get(cases[0]).seconds == {"fft": 3e-3}
    added = turns.Records(records.path).get(cases[1])
    assert added.seconds == {"fft": 1e-3} and added.given_up == {"im2col": 0.5}
    assert records.get(cases[2]) is None


@pytest.mark.usefixtures("benchmarks")
def test_calls_that_take_too_long_are_given_up():
    import time

    from support import turns

    took, hopeless = turns.turn(lambda: time.sleep(5), 1e-3, True)
    assert hopeless and took < 4
    assert turns.turn(lambda: None, 1.0, True)[1] is False


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize("name", list(algorithms.REGISTRY))
def test_forms_are_algorithms_by_their_names(name):
    from support import forms

    case = Case.of("forward", fastconv.conv_geometry((1, 8, 20, 20), (8, 8, 5, 5), stride=2), FLOAT, 2)
    if algorithms.REGISTRY[name].unsupported(case):
        return
    found = forms.forms_of(name, case)
    assert len(found) == (3 if name == "winograd" else 1)
    for form in found:
        assert forms.algorithm_of(form) == name
        plan = forms.make_algorithm(form).plan(case)
        assert plan.algorithm == name and plan.work
    if name == "winograd":
        points = [form.split()[1] for form in found]
        assert sorted(points) == ["4", "6", "8"]
    else:
        with pytest.raises(ValueError, match="has only one form"):
            forms.make_algorithm(f"{name} other")
