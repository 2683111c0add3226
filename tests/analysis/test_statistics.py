import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sagan_bench.analysis import intervals
from sagan_bench.analysis.groups import newcombe
from sagan_bench.analysis.intervals import Intervals, verdicts
from sagan_bench.analysis.power import seeds_needed
from sagan_bench.analysis.statistics import compare, summarize
from sagan_bench.analysis.verdicts import (
    Basis,
    Comparison,
    Floats,
    Lost,
    Metric,
    Runs,
    Standing,
)
from sagan_bench.core.errors import UserError

FID = Metric("FID", "lower", min_effect=1.0)
SAGAN = [22.0, 23.1, 24.3, 22.7, 23.5]
FAR = [26.1, 27.2, 28.9, 26.5, 27.7]
NEAR = [22.1, 23.0, 24.4, 22.5, 23.4]
Values = Sequence[float | None]


def runs(values: Values) -> Runs:
    """Return runs of the values; None is one that diverged."""
    return {seed: Lost.DIVERGED if x is None else x for seed, x in enumerate(values)}


def against(
    variant: Values, baseline: Values = SAGAN, metric: Metric = FID, looks: int = 0
) -> Comparison[Standing]:
    outcomes = {"sagan": runs(baseline), "other": runs(variant)}
    (found,) = compare(outcomes, "sagan", metric, looks=looks)
    return found


# What is computed


def test_each_variant_is_tested_against_the_baseline_and_bonferroni_corrects_the_family() -> None:
    groups: dict[str, Values] = {
        "far": FAR,
        "sagan": SAGAN,
        "short": [24.9, None, 25.1, 23.2, 26.6, None],
        "near": [*NEAR, 25.0],
    }
    found = compare({name: runs(values) for name, values in groups.items()}, "sagan", FID)
    assert [c.variant for c in found] == ["far", "short", "near"]
    p = []
    for c in found:
        finite = [value for value in groups[c.variant] if value is not None]
        test = stats.ttest_ind(finite, SAGAN, equal_var=False)
        assert c.effect == pytest.approx(np.mean(finite) - np.mean(SAGAN))
        assert c.interval_alone == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert c.interval == pytest.approx(tuple(test.confidence_interval(1 - 0.05 / 3)))
        assert (c.n, c.n_ok) == (len(groups[c.variant]), len(finite))
        assert (c.baseline, c.n_baseline, c.n_baseline_ok) == ("sagan", 5, 5)
        p.append(test.pvalue)
    assert p[0] < p[1] < p[2]
    assert [c.p for c in found] == pytest.approx(p)
    assert [c.p_bonferroni for c in found] == pytest.approx([min(1, 3 * each) for each in p])


def test_p_better_counts_pairs_with_ties_as_half_and_diverged_runs_as_worst() -> None:
    def beats(a: float | None, b: float | None) -> float:
        if a is None or b is None:
            return 0.5 if a is b else float(b is None)
        return 0.5 if a == b else float(a < b)

    variant, baseline = [1, 2, 3, None], [3, 4, 3, 2, None, 9]
    wins = [beats(a, b) for a in variant for b in baseline]
    assert against(variant, baseline).p_better == pytest.approx(sum(wins) / len(wins))
    higher = Metric("IS", "higher", 1.0)
    finite_wins = [0.5 if a == b else float(a > b) for a in (1, 2, 3) for b in (3, 4, 3, 2, 9)]
    found = against([1, 2, 3], [3, 4, 3, 2, 9], higher)
    assert found.p_better == pytest.approx(sum(finite_wins) / 15)


def test_hedges_g_of_a_worked_example() -> None:
    found = against([5, 6, 7, 8, 9], [1, 2, 3, 4, 5])
    d = 4 / math.sqrt(2.5)
    assert found.hedges_g == pytest.approx(d * (1 - 3 / (4 * 8 - 1)), rel=1e-6)


def test_a_summary_counts_diverged_runs_beside_the_figures_of_the_others() -> None:
    whole, none = summarize({"other": runs([4.0, None, 1.0, 2.0, 9.0]), "lost": runs([None])})
    assert (whole.variant, whole.n, whole.n_ok) == ("other", 5, 4)
    assert (whole.mean, whole.median, whole.min, whole.max) == (4.0, 3.0, 1.0, 9.0)
    assert whole.sd == pytest.approx(math.sqrt((0 + 9 + 4 + 25) / 3))
    assert whole.divergence_rate == 0.2
    z2 = stats.norm.isf(0.025) ** 2  # Wilson's formula
    centre, half = (1 + z2 / 2) / (5 + z2), math.sqrt(z2 * (1 * 4 / 5 + z2 / 4)) / (5 + z2)
    assert whole.divergence_interval == pytest.approx((centre - half, centre + half))
    assert (none.n, none.n_ok, none.divergence_rate) == (1, 0, 1.0)
    assert none.mean is none.median is none.sd is none.min is none.max is None


# The rule


@pytest.mark.parametrize(
    ("variant", "better", "min_effect", "verdict"),
    [
        (FAR, "lower", 1.0, "worse by as much as matters"),
        (FAR, "higher", 1.0, "better by as much as matters"),
        (FAR, "lower", 2.70, "worse by as much as matters"),
        (FAR, "lower", 2.72, "worse"),  # the interval is [2.708, 5.612]
        (FAR, "lower", 4.15, "worse"),
        (FAR, "lower", 4.17, "differs, but not shown by as much as matters"),
        (FAR, "lower", 5.61, "differs, but not shown by as much as matters"),
        (FAR, "lower", 5.62, "no meaningful difference"),
        (NEAR, "lower", 1.0, "inconclusive"),
        (NEAR, "lower", 1.5, "no meaningful difference"),
        (NEAR, "higher", 1.5, "no meaningful difference"),
        ([v - 0.7 for v in NEAR], "lower", 1.5, "inconclusive"),  # beyond the band below
        ([v + 0.7 for v in NEAR], "lower", 1.5, "inconclusive"),  # beyond the band above
        ([16.0, 18.0, 19.0, 17.0, 18.0], "lower", 1.0, "better by as much as matters"),
    ],
)
def test_the_verdict(variant: Values, better: Any, min_effect: float, verdict: str) -> None:
    assert against(variant, metric=Metric("x", better, min_effect)).verdict == verdict


def test_a_claim_must_survive_the_size_of_its_family() -> None:
    close = [23.9, 25.8, 24.6, 25.1, 24.4]
    metric = replace(FID, min_effect=0.0)
    assert against(close, metric=metric).verdict == "worse"
    family = {"sagan": runs(SAGAN), "close": runs(close)} | {
        f"near-{i}": runs(NEAR) for i in range(7)
    }
    assert compare(family, "sagan", metric)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("n", "basis"),
    [
        (0, Basis.POINTS),
        (1, Basis.POINTS),
        (2, Basis.POINTS),
        (3, Basis.EXPLORATORY),
        (4, Basis.EXPLORATORY),
        (5, Basis.CONFIRMATORY),
    ],
)
@pytest.mark.parametrize("smaller", ["variant", "baseline"])
def test_what_is_said_depends_on_the_seeds_of_the_smaller_group(
    n: int, basis: Basis, smaller: str
) -> None:
    pair = (FAR[:n], SAGAN) if smaller == "variant" else (FAR, SAGAN[:n])
    found = against(*pair)
    inferred = (found.interval, found.interval_alone, found.p, found.p_bonferroni, found.hedges_g)
    assert found.standing == Standing(basis)
    assert all((value is not None) == (n >= 3) for value in (*inferred, found.p_better))
    assert (found.verdict is not None) == (n >= 5)
    assert (found.effect is not None) == (n >= 1)


def test_diverged_runs_count_as_attempted() -> None:
    found = against([*FAR[:3], None, None])
    assert (found.n, found.n_ok, found.standing) == (5, 3, Standing(Basis.CONFIRMATORY))


@pytest.mark.parametrize("looks", [1, 2])
def test_looking_before_adding_seeds_suspendsverdicts(looks: int) -> None:
    found, standing = against(FAR, looks=looks), Standing(Basis.EXPLORATORY, looks=looks)
    assert (found.standing, found.verdict, found.seeds_needed) == (standing, None, None)
    assert found.interval == against(FAR).interval
    assert against(FAR[:2], looks=looks).standing == Standing(Basis.POINTS)


def test_a_claim_must_survive_diverged_runs_ranked_worst() -> None:
    agreed = against([*FAR, None])
    assert agreed.p_rank == pytest.approx(2 / math.comb(11, 5))
    assert agreed.verdict == "worse by as much as matters"
    assert against(FAR).p_rank is None
    lost = against([10.0, 11.0, 12.0, 11.5, None])  # by t far better, of those that finished
    assert lost.p_bonferroni is not None
    assert lost.p_bonferroni < 0.05
    assert lost.p_rank is not None
    assert lost.p_rank > 0.05
    assert lost.verdict == "inconclusive"


def test_ranks_that_point_the_other_way_undo_a_claim() -> None:
    found = against([10.0, 11.0, 10.5, *[None] * 17], [*SAGAN, *NEAR])
    assert found.p_bonferroni is not None
    assert found.p_rank is not None
    assert max(found.p_bonferroni, found.p_rank) < 0.05
    assert found.p_better == pytest.approx(0.15)
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize("lost", [3, 4, 5])
def test_a_variant_that_diverges_is_worse_by_divergence(lost: int) -> None:
    diverging: Values = [*FAR[: 5 - lost], *[None] * lost]
    assert against(diverging).verdict == "worse by divergence"
    assert against(SAGAN, diverging).verdict == "better by divergence"
    found = against(diverging)
    assert (found.n_diverged, found.n_failed, found.n_baseline_diverged) == (lost, 0, 0)
    assert found.p_rank is not None
    assert found.p_rank < 0.012
    assert found.seeds_needed is None


def test_divergence_is_judged_at_the_level_of_its_family() -> None:
    most, near = runs([90.0, *[None] * 4]), {f"near-{i}": runs(NEAR) for i in range(7)}
    family = {"sagan": runs(SAGAN), "most": most}
    assert compare(family, "sagan", FID)[0].verdict == "worse by divergence"
    assert compare(family | near, "sagan", FID)[0].verdict == "inconclusive"  # 0.01 of 0.05 / 8


@pytest.mark.parametrize("others", [0, 8, 24])
def test_all_against_none_is_seen_in_large_families(others: int) -> None:
    """Ranks of so many ties, p = 0.0075, would miss it from 7 comparisons on."""
    near = {f"near-{i}": runs(NEAR) for i in range(others)}
    family = {"sagan": runs(SAGAN), "lost": runs([None] * 5), **near}
    found = compare(family, "sagan", FID)[0]
    assert found.verdict == "worse by divergence"
    exact = stats.barnard_exact([[5, 0], [0, 5]], pooled=True)
    assert found.p_divergence == pytest.approx(exact.pvalue, rel=1e-3)


def test_a_failure_of_the_machine_undoes_a_claim_and_never_makes_one() -> None:
    failed = dict.fromkeys(range(5), Lost.FAILED)
    (found,) = compare({"sagan": runs(SAGAN), "other": failed}, "sagan", FID)
    assert (found.verdict, found.n_failed, found.n_diverged) == ("inconclusive", 5, 0)
    assert found.p_better is found.pairs is None
    better = {**runs([10.0, 11.0, 12.0, 11.5]), 4: Lost.FAILED}
    (found,) = compare({"sagan": runs(SAGAN), "other": better}, "sagan", FID)
    assert (found.verdict, found.p_better, found.pairs) == ("inconclusive", 1.0, 20)
    one_diverged = {**runs([None] * 4), 4: Lost.FAILED}
    (found,) = compare({"sagan": runs(SAGAN), "other": one_diverged}, "sagan", FID)
    assert found.verdict == "inconclusive"


def test_what_was_not_measured_is_no_divergence() -> None:
    absent = dict.fromkeys(range(5), Lost.NO_FIGURE)
    (found,) = compare({"sagan": runs(SAGAN), "other": absent}, "sagan", FID)
    assert (found.verdict, found.n_ok, found.n_diverged, found.n_failed) == (
        "inconclusive", 0, 0, 0,
    )  # fmt: skip
    (summary,) = summarize({"other": absent})
    assert (summary.divergence_rate, summary.n_diverged) == (0.0, 0)


@pytest.mark.parametrize(
    ("p", "n", "m", "interval"),
    [
        (1.0, 5, 5, (0.643, 1.0)),
        (0.0, 5, 5, (0.0, 0.357)),
        (0.5, 5, 5, (0.206, 0.794)),
        (1.0, 8, 8, (0.756, 1.0)),
    ],
)
def test_the_interval_of_pairs_ahead(
    p: float, n: int, m: int, interval: tuple[float, float]
) -> None:
    """The bounds solve (p - c)^2 = z^2 V(c), by the formula; wide where all pairs agree."""
    z2 = stats.norm.isf(0.025) ** 2
    low, high = newcombe(p, n, m)
    for bound in (low, high):
        if bound not in (0.0, 1.0):
            spread = 1 + ((n + m) / 2 - 1) * ((1 - bound) / (2 - bound) + bound / (1 + bound))
            assert (p - bound) ** 2 == pytest.approx(z2 * bound * (1 - bound) * spread / (n * m))
    assert (low, high) == pytest.approx(interval, abs=1e-3)


@pytest.mark.parametrize("lost_by", ["variant", "baseline"])
def test_no_equivalence_with_a_diverged_run(lost_by: str) -> None:
    wide = replace(FID, min_effect=3.0)
    assert against(NEAR, SAGAN, wide).verdict == "no meaningful difference"
    variant: Values = [*NEAR, None] if lost_by == "variant" else NEAR
    baseline: Values = [*SAGAN, None] if lost_by == "baseline" else SAGAN
    assert against(variant, baseline, wide).verdict == "inconclusive"


# How many seeds


def normal(n: int, mean: float) -> list[float]:
    """Return n values whose mean is ``mean`` and whose standard deviation is 1."""
    x = np.linspace(-1, 1, n)
    return [float(v) for v in mean + x / x.std(ddof=1)]


@pytest.mark.parametrize(("effect", "min_effect"), [(1.0, 0.2), (-1.0, 0.2)])
def test_seeds_needed_for_one_sd_is_the_textbook_17(effect: float, min_effect: float) -> None:
    found = against(normal(5, effect), normal(5, 0), Metric("x", "lower", min_effect))
    assert (found.verdict, found.seeds_needed) == ("inconclusive", 17)


def test_seeds_needed_grows_with_the_family_and_is_null_where_it_promises_nothing() -> None:
    metric = Metric("x", "lower", 0.0)
    barely = against(normal(5, 1.0), normal(5, 0), Metric("x", "lower", 0.999))
    assert barely.seeds_needed is None  # hardly beyond what matters: no number would settle it
    family = {"sagan": runs(normal(5, 0))} | {f"v{i}": runs(normal(5, 1)) for i in range(4)}
    assert {c.seeds_needed for c in compare(family, "sagan", metric)} == {24}
    assert {c.seeds_range for c in compare(family, "sagan", metric)} == {(9, 721)}
    assert against(normal(5, 0.01), normal(5, 0), metric).seeds_needed is None  # over 1,000
    assert against(normal(5, 3), normal(5, 0), metric).seeds_needed is None  # not inconclusive
    wide = Metric("x", "lower", 3.5)
    assert (
        against(normal(8, 3), normal(8, 0), wide).verdict
        == "differs, but not shown by as much as matters"
    )
    near = against(normal(8, 0.5), normal(8, 0), Metric("x", "lower", 1.0))
    assert (near.verdict, near.seeds_needed) == ("inconclusive", 64)


# Awkward input


def test_no_spread_in_either_group_is_inconclusive_whatever_the_means() -> None:
    averaged = 0.1 + 0.2  # 0.30000000000000004, beside 0.3: rounding, not spread
    for variant in ([0.3] * 5, [0.9] * 5, [0.3, averaged, 0.3, 0.3, averaged]):
        found = against(variant, [0.3, averaged, 0.3, 0.3, 0.3])
        assert (found.verdict, found.interval, found.p) == ("inconclusive", None, None)
        assert found.hedges_g is found.seeds_needed is None
    assert against([0.0] * 5, [0.0] * 5).p is None


def test_spread_in_one_group_is_enough() -> None:
    assert against(FAR, [22.0] * 5).verdict == "worse by as much as matters"


@pytest.mark.parametrize("lost", [4, 5])
def test_too_few_finite_values_are_inconclusive(lost: int) -> None:
    for others in (SAGAN[: 5 - lost], []):
        found = compare(
            {"sagan": {**runs(others), **dict.fromkeys(range(len(others), 5), Lost.FAILED)},
             "other": runs(FAR)}, "sagan", FID,
        )[0]  # fmt: skip
        assert (found.verdict, found.interval, found.p) == ("inconclusive", None, None)
    assert against([None] * 5).p_better == 0
    assert against([None] * 5, [None] * 5).p_better == 0.5


def test_a_lost_variant_still_counts_in_the_family() -> None:
    family = {"sagan": runs(SAGAN), "far": runs(FAR), "lost": runs([None] * 5), "one": runs([1.0])}
    far, lost, one = compare(family, "sagan", FID)
    assert far.p is not None
    assert far.p_bonferroni == pytest.approx(3 * far.p)
    assert lost.p_bonferroni is one.p_bonferroni is None


def test_each_variant_can_have_a_baseline_of_its_own() -> None:
    outcomes = {"a": runs(FAR), "b": runs(SAGAN), "c": runs(NEAR), "d": runs(FAR)}
    first, second = compare(outcomes, [("a", "b"), ("c", "d")], FID)
    assert (first.baseline, second.baseline) == ("b", "d")
    for found, (x, y) in ((first, (FAR, SAGAN)), (second, (NEAR, FAR))):
        alone = against(x, y)
        assert found.p == pytest.approx(alone.p)
        assert found.interval_alone == pytest.approx(alone.interval_alone)
        assert found.interval is not None
        assert alone.interval is not None
        assert found.interval[0] < alone.interval[0]
    with pytest.raises(UserError, match="'e'"):
        compare(outcomes, [("a", "e")], FID)


def test_while_runs_are_missing_there_is_no_verdict() -> None:
    outcomes = {"sagan": runs(SAGAN), "far": runs(FAR)}
    (found,) = compare(outcomes, "sagan", FID, missing=3)
    assert found.verdict is None
    assert found.standing == Standing(Basis.PROVISIONAL, missing=3)
    assert found.interval is not None


def test_results_are_json_whatever_the_outcomes() -> None:
    awkward: list[Values] = [SAGAN, FAR, [], [1.0], [None], [None] * 6, [2.0] * 6, [None, 1, 2, 3]]
    outcomes = {str(i): runs(values) for i, values in enumerate(awkward)}
    for baseline in outcomes:
        found = compare(outcomes, baseline, FID)
        results = [asdict(c) for c in found] + [asdict(s) for s in summarize(outcomes)]
        assert len(json.loads(json.dumps(results, allow_nan=False))) == 2 * len(awkward) - 1
    assert compare({"sagan": runs(SAGAN)}, "sagan", FID) == ()
    assert compare({"sagan": {}, "other": {}}, "sagan", FID)[0].effect is None


@pytest.mark.parametrize("size", [1e155, 1e300, 1.7e308, 5e-324, 1e-310])
def test_sizes_at_the_ends_of_what_a_number_holds_are_json(size: float) -> None:
    outcomes = {"sagan": runs([size * x for x in (1, 0.5, 0.25, 0.75, 0.9)]), "other": runs(FAR)}
    for one in (outcomes, {"sagan": outcomes["sagan"], "other": runs([-size] * 4 + [size])}):
        results = [asdict(c) for c in compare(one, "sagan", FID)]
        assert json.dumps([*results, *map(asdict, summarize(one))], allow_nan=False)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    outcomes = {"sagan": runs(SAGAN), "other": {7: 1.0, 8: value}}
    with pytest.raises(UserError, match=r"other, seed 8: .*give a finite one, or Lost"):
        compare(outcomes, "sagan", FID)
    with pytest.raises(UserError, match="seed 8"):
        summarize(outcomes)


def test_a_missing_baseline_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match=r"'sagn'; .* sagan, other"):
        compare({"sagan": runs(SAGAN), "other": runs(FAR)}, "sagn", FID)
    with pytest.raises(UserError, match="none"):
        compare({}, "sagan", FID)


def test_a_metric_out_of_range_is_refused() -> None:
    for min_effect in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="finite number, 0 or more"):
            Metric("FID", "lower", min_effect)
    direction: Any = "smaller"
    with pytest.raises(UserError, match="say 'lower' or 'higher'"):
        Metric("FID", direction, 1.0)


# Error rates of the rule: `pytest -m slow -rP tests/analysis/test_statistics.py` shows the figures

SPREADS = {  # standard deviations of the baseline, the first variant, the others
    "equal": (1, 1, 1),
    "one variant x4": (1, 4, 1),
    "baseline x4": (4, 1, 1),
    "baseline x0.3": (0.3, 1, 1),
}
REPEATS = 20_000
ANY = Metric("x", "lower", 0.0)  # the hardest: every effect matters


def drawn(m: int, n: int, spread: str, effects: Sequence[float] = ()) -> Floats:
    """Return normal groups of shape (repeats, 1 + m, n); effects are of the first variants."""
    rng = np.random.default_rng([m, n, list(SPREADS).index(spread), len(effects)])
    means = np.zeros(1 + m)
    means[1 : 1 + len(effects)] = effects
    baseline, first, others = SPREADS[spread]
    sds = np.array([baseline, first, *[others] * (m - 1)])
    return means[:, None] + sds[:, None] * rng.standard_normal((REPEATS, 1 + m, n))


def welch(groups: Floats) -> Intervals:
    """Test groups (..., 1 + m, n), the baseline first."""
    return intervals.welch(groups[..., 1:, :], groups[..., :1, :])


def claims(said: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which verdicts prefer one side."""
    return np.char.startswith(said, "better") | np.char.startswith(said, "worse")


def worse(groups: Floats) -> NDArray[np.bool_]:
    """Return in which families the first variant is called worse."""
    return np.char.startswith(verdicts(welch(groups), ANY)[:, 0], "worse")


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("m", [1, 2, 4, 8])
def test_false_claims_and_coverage_keep_their_bounds(m: int, n: int, spread: str) -> None:
    found = welch(drawn(m, n, spread))
    false_claims = claims(verdicts(found, ANY)).any(-1).mean()
    together = ((found.low <= 0) & (found.high >= 0)).all(-1).mean()
    alone = ((found.low_alone <= 0) & (found.high_alone >= 0)).mean(0)
    print(f"m={m} n={n} {spread}: false claims {false_claims:.4f}, coverage {together:.4f}", end="")
    print(f", of one {alone.min():.4f} to {alone.max():.4f}")
    assert false_claims <= 0.07
    assert together >= 0.93
    assert alone.min() >= 0.93
    assert alone.max() <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("true", [1, 4])
@pytest.mark.parametrize("n", [5, 8])
def test_three_standard_deviations_are_seen_with_8_seeds(n: int, true: int) -> None:
    matters = Metric("x", "lower", 1.0)
    said = verdicts(welch(drawn(4, n, "equal", effects=[3.0] * true)), matters)
    claimed = np.char.startswith(said[:, :true], "worse").mean(0)
    print(f"3 sd, n={n}, {true} of 4 true: claimed {claimed.min():.4f}")
    assert not np.char.startswith(said[:, :true], "better").any()
    assert claimed.min() >= {5: 0.7, 8: 0.8}[n]
    assert claims(said[:, true:]).any(-1).mean() <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effect", "least", "verdict"),
    [(1.0, 0.6, "worse"), (0.2, 1.0, "no meaningful difference")],
)
def test_the_seeds_said_to_be_needed_suffice_where_small_effects_do_not_matter(
    effect: float, least: float, verdict: str
) -> None:
    metric = Metric("x", "lower", least)
    needed = seeds_needed(np.array(normal(5, effect)), np.array(normal(5, 0)), metric, 0.05)
    assert needed is not None
    n, _ = needed
    power = np.char.startswith(
        verdicts(welch(drawn(1, n, "equal", effects=[effect])), metric), verdict
    ).mean()
    print(f"{effect} sd, {least} matters, m=1: power {power:.4f} with {n} seeds")
    assert 0.78 < power < 0.84


@pytest.mark.slow
def test_the_seeds_said_to_be_needed_suffice() -> None:
    needed = seeds_needed(np.array(normal(5, 1)), np.array(normal(5, 0)), ANY, 0.05 / 4)
    assert needed is not None
    n, _ = needed
    power = [worse(drawn(4, size, "equal", effects=[1.0])).mean() for size in (n - 2, n)]
    print(f"1 sd, m=4: power {power[0]:.4f} with {n - 2} seeds, {power[1]:.4f} with {n}")
    assert power[0] < 0.79
    assert 0.79 < power[1] < 0.83


FAMILIES = 500
"""Of those drawn, as many as are decided by the whole rule, which takes its time."""


def decided(groups: Floats, lost: np.ndarray[Any, Any]) -> list[list[str | None]]:
    """Return the verdicts of the whole rule; groups, lost: (repeats, 1 + m, n)."""
    values = groups.astype(object)
    values[lost] = None
    families = (
        {str(i): runs(group) for i, group in enumerate(family)} for family in values.tolist()
    )
    with pytest.MonkeyPatch.context() as patch:  # how many seeds are needed is not asked
        patch.setattr("sagan_bench.analysis.statistics.seeds_needed", lambda *args: None)
        return [[c.verdict for c in compare(family, "0", ANY)] for family in families]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["any run", "the worst run"])
@pytest.mark.parametrize("n", [5, 8])
def test_a_diverged_run_does_not_undo_a_true_worse(n: int, which: str) -> None:
    groups = drawn(4, n, "equal", effects=[4.0])[:FAMILIES]
    lost = np.zeros_like(groups, dtype=bool)
    fails = groups[:, 1].argmax(-1) if which == "the worst run" else 0
    lost[np.arange(len(groups)), 1, fails] = True
    claimed = np.array([(row[0] or "").startswith("worse") for row in decided(groups, lost)])
    by_t = worse(np.where(lost, np.nan, groups))
    print(f"4 sd, n={n}, {which} lost: claimed {claimed.mean():.4f}, by t alone {by_t.mean():.4f}")
    assert claimed.mean() >= 0.8
    assert (by_t & ~claimed).mean() <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("where", ["everywhere", "baseline"])
def test_diverged_runs_make_no_false_claims(where: str) -> None:
    groups = drawn(4, 5, "equal")[:FAMILIES]
    share = np.array([0.2] * 5 if where == "everywhere" else [0.4, 0, 0, 0, 0])
    lost = np.random.default_rng(1).random(groups.shape) < share[:, None]
    verdicts = np.array(decided(groups, lost), dtype=str)
    false = claims(verdicts)
    if where == "baseline":  # which does diverge more: to say so is true
        false &= ~np.char.endswith(verdicts, "by divergence")
    rate = false.any(-1).mean()
    print(f"all null, n=5, {share.max():.0%} lost {where}: false claims {rate:.4f}")
    assert rate <= 0.07
