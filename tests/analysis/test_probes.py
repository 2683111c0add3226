"""What probes of finished weights say together, in figures: the rule of docs/probe.md."""

from typing import Any

import numpy as np
import pytest
from example_findings import run_of
from example_probes import findings_of, probe_of
from scipy import stats

from sagan_bench.analysis.dependence import Figures, State, judged
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.probed_runs import LeftOut
from sagan_bench.analysis.probes import Dependence
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Basis, Metric, Standing

NOISE = (-0.02, -0.01, 0.0, 0.01, 0.02)
OURS = [0.52, 0.49, 0.55, 0.50, 0.56]
THEIRS = [0.31, 0.35, 0.28, 0.33, 0.30]


def near(value: float, **more: Any) -> list[dict[str, Any]]:
    """Probes of five runs, whose figure with a uniform map is about a value; the sham's is 0.5."""
    return [{"applied": value + noise, **more} for noise in NOISE]


def dependence(probes: Any, **changed: Any) -> Dependence[Standing]:
    found = findings_of(OURS, THEIRS, probes, **changed).probes
    assert found is not None
    (told,) = found.dependences
    return told


@pytest.mark.parametrize(
    ("probes", "state"),
    [
        (near(0.1), State.DEPENDS),
        (near(0.9), State.AGAINST),
        (near(0.5), State.DOES_NOT),
        (near(0.45), State.CANNOT_TELL),
        ([{"applied": x} for x in (0.1, 0.9, 0.2, 0.8, 0.3)], State.CANNOT_TELL),
        (near(0.1, frozen=0.5), State.NORMALISATION),
        (near(0.12, frozen=0.1), State.DEPENDS),
        # all changes of that size break it: nothing can be told of the map
        (near(0.5, untouched=0.9), State.CANNOT_TELL),
        # nothing is there to lose
        ([{"applied": 0.02 + x / 9, "sham": 0.02, "untouched": 0.02} for x in NOISE],
         State.CANNOT_TELL),
        # the control with uniform maps: nothing changes, to the pixel
        ([{"applied": 0.5, "changed": 0.0}] * 5, State.DOES_NOT),
        # without spread nothing is estimated
        ([{"applied": 0.1}] * 5, State.CANNOT_TELL),
    ],
)  # fmt: skip
def test_the_state(probes: Any, state: State) -> None:
    told = dependence(probes)
    assert (told.state, told.standing.basis, told.n) == (state, Basis.CONFIRMATORY, 5)


def test_the_figures() -> None:
    told = dependence(near(0.1, sham=0.45))
    figures = told.untouched, told.effect, told.sham_effect, told.excess, told.excess_frozen
    assert figures == pytest.approx((0.5, -0.4, -0.05, -0.35, -0.35))
    half = 2.7764 * np.std(NOISE, ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    assert told.interval == pytest.approx((-0.35 - half, -0.35 + half), abs=1e-4)
    assert told.excesses == pytest.approx(dict(enumerate(x - 0.35 for x in NOISE)))


def test_of_a_metric_of_which_less_is_better_the_directions_turn() -> None:
    lower, x = Metric("FID", "lower", 0.05), np.array(NOISE)[None]
    for value, state in ((0.9, State.DEPENDS), (0.1, State.AGAINST)):
        half = np.full_like(x, 0.5)
        figures = Figures(half, value + x, half, value + x, half, half)
        assert judged(figures, lower, 0.05).state.tolist() == [state]


@pytest.mark.parametrize("least", [0, "0%"])
def test_where_every_difference_matters_nothing_is_equivalent(least: float | str) -> None:
    measure = Measure(metric="twin_rate", min_effect=least)
    assert dependence(near(0.5), measure=measure).state is State.CANNOT_TELL
    assert dependence(near(0.1), measure=measure).state is State.DEPENDS
    bent = [{"applied": 0.1 + x, "frozen": 0.11 + 2 * x} for x in NOISE]
    assert dependence(bent, measure=measure).state is State.DEPENDS  # not shown to disagree
    apart = [{"applied": 0.1 + x, "frozen": 0.3 + 2 * x} for x in NOISE]
    assert dependence(apart, measure=measure).state is State.NORMALISATION


def test_a_margin_as_a_share_is_one_of_the_untouched_figure() -> None:
    told = dependence(near(0.5), measure=Measure(metric="twin_rate", min_effect="10%"))
    assert told.margin == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("probes", "why", "basis"),
    [
        ([*near(0.1)[:4], None], LeftOut.NOT_PROBED, Basis.POINTS),
        ([*near(0.1)[:4], {"applied": None}], LeftOut.UNDEFINED, Basis.POINTS),
        ([*near(0.1)[:4], {"applied": 0.1, "sham": None}], LeftOut.UNDEFINED, Basis.POINTS),
        ([*near(0.1), None], LeftOut.NOT_PROBED, Basis.PROVISIONAL),
        ([*near(0.1), {"applied": 0.1, "step": 5}], LeftOut.OTHER_WEIGHTS, Basis.PROVISIONAL),
        ([*near(0.1), {"applied": 0.1, "fingerprint": "a"}], LeftOut.OTHER_PROTOCOL,
         Basis.PROVISIONAL),
        ([*near(0.1), {"applied": 0.1, "metric": "hue_match"}], LeftOut.NOT_MEASURED,
         Basis.PROVISIONAL),
        ([*near(0.1), {"has_maps": False}], LeftOut.NO_MAP, Basis.CONFIRMATORY),
    ],
)  # fmt: skip
def test_a_run_that_does_not_count_is_counted(probes: Any, why: LeftOut, basis: Basis) -> None:
    ours = [*OURS, 0.5][: len(probes)]
    found = findings_of(ours, THEIRS, probes).probes
    assert found is not None
    (told,) = found.dependences
    assert told.left_out == {why: 1}
    assert (told.n, told.standing.basis) == (len(probes) - 1, basis)
    assert (told.state is None) == (basis is not Basis.CONFIRMATORY)
    assert (told.interval is None) == (basis is Basis.POINTS)


def test_nothing_is_equivalent_where_a_figure_is_undefined() -> None:
    found = findings_of([*OURS, 0.5], THEIRS, [*near(0.5), {"applied": None}]).probes
    assert found is not None
    assert found.dependences[0].state is State.CANNOT_TELL


@pytest.mark.parametrize(
    ("changed", "basis"),
    [
        ({"declared": False}, Basis.POST_HOC),
        ({"looks": 1}, Basis.EXPLORATORY),
        ({"comparable": False}, Basis.TOO_SMALL),
    ],
)
def test_words_need_what_verdicts_need(changed: dict[str, Any], basis: Basis) -> None:
    told = dependence(near(0.1), **changed)
    assert (told.standing.basis, told.state) == (basis, None)


def test_without_probes_nothing_is_said() -> None:
    assert findings_of(OURS, THEIRS, [None] * 5).probes is None


def test_what_leaving_attention_out_costs_is_told_less_what_controls_cost() -> None:
    sides = {"attention16": 0.1}
    controls = [run_of("residual", seed, 0.4) for seed in range(5)]
    more = [
        (run, probe_of(run, has_maps=False, without={"residual16": 0.4 + noise}))
        for run, noise in zip(controls, NOISE, strict=True)
    ]
    probes = [{"applied": 0.1, "without": sides}] * 5
    found = findings_of(OURS, THEIRS, probes, more=more).probes
    assert found is not None
    (beside,) = found.beside_controls
    assert (beside.variant, beside.control, beside.side) == ("sagan", "residual", 16)
    assert (beside.without, beside.control_without) == pytest.approx((-0.4, -0.1))
    assert beside.difference == pytest.approx(-0.3)
    half = 2.7764 * np.std(NOISE, ddof=1) / np.sqrt(5)  # Welch: one side has no spread
    assert beside.interval == pytest.approx((-0.3 - half, -0.3 + half), abs=1e-4)
    assert [each.variant for each in found.dependences] == ["sagan"]


def test_variants_share_the_error() -> None:
    alone = dependence(near(0.1)).interval
    others = [run_of("gamma-fixed-1", seed, 0.5) for seed in range(5)]
    more = [(run, probe_of(run, 0.1)) for run in others]
    found = findings_of(OURS, THEIRS, near(0.1), more=more).probes
    assert found is not None
    together = next(d.interval for d in found.dependences if d.variant == "sagan")
    assert alone is not None
    assert together is not None
    assert together[0] < alone[0]
    assert together[1] > alone[1]


def test_the_name_of_the_intervention_is_one() -> None:
    from sagan_bench.models.attention import _interventions
    from sagan_bench.runs import probe

    assert any(each.name == probe.NONE for each in _interventions.TABLE)


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("least", [0.0, 0.05])
def test_false_claims(n: int, least: float) -> None:
    """Of 4,000 studies without an excess, or with one just of the margin, few say `depends`."""
    random, shape = np.random.default_rng(n), (4_000, n)
    noise = random.normal(0, 0.05, (3, *shape))
    untouched = 0.6 + noise[0]
    sham = untouched - 0.1 + noise[1]
    applied = sham - least + noise[2]
    figures = Figures(untouched, applied, sham, applied, sham, np.full(shape, 0.5))
    states = judged(figures, Metric("twin_rate", "higher", least), 0.05).state
    for state in (State.DEPENDS, State.AGAINST):
        assert np.mean(states == state) < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 4_000)
    assert np.mean(states == State.DOES_NOT) < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 4_000)


def test_a_study_until_conclusive_pays_the_price_of_its_look() -> None:
    """Whatever it stopped by: the price holds for all looks at once."""
    design = Design(pairs=1, horizon=20, most=20)
    told = dependence(near(0.1), design=design, order=tuple(range(20)))
    assert (told.state, told.standing.basis) == (State.DEPENDS, Basis.CONFIRMATORY)
    error = np.std(NOISE, ddof=1) / np.sqrt(5)
    half = stats.t.isf(design.price(5) / 2, 4) * error
    assert told.interval == pytest.approx((-0.4 - half, -0.4 + half), abs=1e-4)


def test_of_a_study_until_conclusive_the_seeds_of_a_look_count() -> None:
    design = Design(pairs=1, horizon=20, most=20)
    probes = [{"applied": 0.1}, *near(0.1)]
    order = (1, 2, 3, 4, 5, 0, *range(6, 20))
    found = findings_of([0.5, *OURS], THEIRS, probes, design=design, order=order).probes
    assert found is not None
    assert sorted(found.dependences[0].excesses) == [1, 2, 3, 4, 5]
