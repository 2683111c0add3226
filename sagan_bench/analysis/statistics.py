"""Outcomes of training runs -> comparisons with a baseline: pure functions, no reading of files.

The unit is a training run: sampling seeds are averaged within it beforehand. docs/statistics.md
states the rule, its reasons and its measured error rates.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd

from sagan_bench.analysis.groups import Group, newcombe
from sagan_bench.analysis.intervals import Intervals, by_pairs, verdicts, welch
from sagan_bench.analysis.power import seeds_needed
from sagan_bench.analysis.verdicts import (
    ALPHA,
    Basis,
    Comparison,
    Floats,
    Interval,
    Lost,
    Metric,
    Outcomes,
    Pair,
    Runs,
    Standing,
    Summary,
    Verdict,
)
from sagan_bench.core.errors import UserError

EXPLORATORY_N = 3
"""Attempted seeds in the smaller group from which intervals are given."""
CONFIRMATORY_N = 5
"""Attempted seeds in the smaller group from which verdicts are given."""


@np.errstate(all="ignore")  # of values near the ends of what a number holds
def summarize(outcomes: Outcomes) -> tuple[Summary, ...]:
    """Return one summary a variant, in the order given.

    Raises:
        UserError: A value is NaN or infinite.
    """
    return tuple(_summary(variant, runs) for variant, runs in _checked(outcomes).items())


@np.errstate(all="ignore")
def compare(
    outcomes: Outcomes,
    against: str | Sequence[Pair],
    metric: Metric,
    *,
    looks: int = 0,
    missing: int = 0,
    level: float | None = None,
    paired: bool = False,
) -> tuple[Comparison[Standing], ...]:
    """Compare variants with their baselines; together these comparisons are the family.

    ``better`` or ``worse`` needs a simultaneous interval without 0, an effect beyond the smallest
    that matters, and, if a run diverged, a rank test that agrees; ``by as much as matters``, that
    the whole interval is beyond it.  An interval without 0 and a smaller effect is ``differs``.
    ``no meaningful difference`` needs an interval within plus or minus the smallest effect that
    matters, and no diverged run.  Two groups without spread allow none of these, whatever their
    means.  ``by divergence`` needs a rank test (diverged runs worst) at the family's level, more
    diverged runs on the worse side, and no difference of means that points the other way.

    Args:
        outcomes: Variant -> training seed -> value, sampling seeds averaged.
        against: Pairs of a variant and its baseline; or one baseline for every other variant.
        metric: What the values are.
        looks: How often results were looked at before more seeds were added.
        missing: Runs of the plan that are still to come; until then there are no verdicts.
        level: Of each comparison; by default `ALPHA` shared equally among them.
        paired: Compare runs of the same seed: Student's t and Wilcoxon's ranks of differences.

    Raises:
        UserError: A variant or baseline is missing, or a value is NaN or infinite.
    """
    pairs = _pairs(_checked(outcomes), against)
    if not pairs:
        return ()
    groups = _by_seed(outcomes) if paired else _padded(outcomes)
    variants, baselines = (np.stack([groups[pair[side]] for pair in pairs]) for side in (0, 1))
    rule = _Rule(ALPHA / len(pairs) if level is None else level, level or ALPHA, paired)
    test = by_pairs if paired else welch
    family = zip(pairs, np.transpose(test(variants, baselines, rule.level)), strict=True)
    standing = partial(_standing, looks=looks, missing=missing)
    return tuple(
        _comparison(outcomes, pair, metric, standing, Intervals(*row), rule) for pair, row in family
    )


def _pairs(outcomes: Outcomes, against: str | Sequence[Pair]) -> Sequence[Pair]:
    if isinstance(against, str):
        named, pairs = {against}, [(name, against) for name in outcomes if name != against]
    else:
        named, pairs = {name for pair in against for name in pair}, list(against)
    for name in sorted(named - outcomes.keys()):
        known = ", ".join(outcomes) or "none"
        raise UserError(f"No runs of the variant {name!r}; choose among the variants: {known}.")
    return pairs


def mean_of_all(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where there is no value, or one is missing."""
    known = list(values)
    numbers = [value for value in known if value is not None]
    return fmean(numbers) if numbers and len(numbers) == len(known) else None


class _Rule(NamedTuple):
    """How a comparison is decided."""

    level: float
    """Of its interval, and of ranks alone."""
    rank_level: float
    """Of ranks that are to agree with an interval."""
    paired: bool


def _comparison(
    outcomes: Outcomes,
    pair: Pair,
    metric: Metric,
    standing_of: Callable[[int], Standing],
    tested: Intervals,
    rule: _Rule,
) -> Comparison[Standing]:
    ours, theirs = (Group(outcomes[name]) for name in pair)
    x, y = ours.values, theirs.values
    metric = metric.against(y.mean() if len(y) else 0.0)
    standing = standing_of(min(ours.n, theirs.n))
    points: Comparison[Standing] = Comparison(
        *pair,
        *(ours.n, len(x), theirs.n, len(y)),
        _number(tested.effect),
        standing,
        min_effect=metric.min_effect,
        n_diverged=ours.diverged,
        n_failed=ours.failed,
        n_baseline_diverged=theirs.diverged,
        n_baseline_failed=theirs.failed,
    )
    if standing.basis is Basis.POINTS:
        return points
    decided = _decided(points, tested, ours, theirs, metric, rule)
    is_tested = not math.isnan(tested.p)
    sought = is_tested and decided.verdict is Verdict.INCONCLUSIVE
    needed = seeds_needed(x, y, metric, rule.level) if sought else None
    pairs = ours.ranked * theirs.ranked
    p_better = ours.p_better(theirs, metric, worst=(Lost.DIVERGED,)) if pairs else None
    return replace(
        decided,
        hedges_g=_hedges_g(x, y) if is_tested else None,
        p_better=p_better,
        pairs=pairs or None,
        p_better_interval=None
        if p_better is None
        else newcombe(p_better, ours.ranked, theirs.ranked),
        seeds_needed=needed and needed[0],
        seeds_range=needed and needed[1],
    )


def _decided(
    points: Comparison[Standing],
    tested: Intervals,
    ours: Group,
    theirs: Group,
    metric: Metric,
    rule: _Rule,
) -> Comparison[Standing]:
    """Return a comparison with its intervals and tests, and where confirmatory its verdict."""
    p_rank = ours.p_rank(theirs, metric, rule.paired)
    p_divergence = min(p_rank, ours.p_all_or_none(theirs, rule.paired))
    verdict = Verdict(verdicts(tested, metric).item())
    if ours.lost or theirs.lost:
        agrees, diverges = p_rank < rule.rank_level, p_divergence <= rule.level
        verdict = _with_lost_runs(verdict, ours, theirs, metric, agrees, diverges)
    return replace(
        points,
        interval=_interval(tested.low, tested.high),
        interval_alone=_interval(tested.low_alone, tested.high_alone),
        p=_number(tested.p),
        p_bonferroni=_number(tested.p_corrected),
        p_rank=p_rank if ours.lost or theirs.lost else None,
        p_divergence=p_divergence if verdict.is_by_divergence else None,
        verdict=verdict if points.standing.basis is Basis.CONFIRMATORY else None,
    )


def _standing(n: int, looks: int, missing: int) -> Standing:
    if n < EXPLORATORY_N:
        return Standing(Basis.POINTS)
    if missing:
        return Standing(Basis.PROVISIONAL, missing=missing)
    is_exploratory = looks or n < CONFIRMATORY_N
    return Standing(Basis.EXPLORATORY if is_exploratory else Basis.CONFIRMATORY, looks=looks)


def _with_lost_runs(
    verdict: Verdict, ours: Group, theirs: Group, metric: Metric, agrees: bool, diverges: bool
) -> Verdict:
    """Return what is left of a verdict, or what the diverged runs show alone.

    A claim is left if ranks agree, lost runs worst; nothing else is, because a lost run is further
    off than any difference that does not matter.  *By divergence* needs ranks at the family's
    level, more diverged runs on the worse side, none that failed, and means that do not contradict.
    Fewer than 3 values have no say.
    """
    p_better = ours.p_better(theirs, metric, worst=[*Lost])
    worse, few = p_better < 0.5, min(len(ours.values), len(theirs.values)) < EXPLORATORY_N
    says_so = verdict.is_worse if worse else verdict.is_better
    if says_so and agrees and not few:
        return verdict
    excess = ours.diverged / ours.n - theirs.diverged / theirs.n
    more_diverged = excess > 0 if worse else excess < 0
    others = ours.lost + theirs.lost - ours.diverged - theirs.diverged
    if (
        not diverges
        or not more_diverged
        or others
        or not (few or _same_way(ours, theirs, metric, worse))
    ):
        return Verdict.INCONCLUSIVE
    return Verdict.WORSE_BY_DIVERGENCE if worse else Verdict.BETTER_BY_DIVERGENCE


def _same_way(ours: Group, theirs: Group, metric: Metric, worse: bool) -> bool:
    """Return whether means say what ranks say, or nothing."""
    difference = ours.values.mean() - theirs.values.mean()
    return not difference or ((difference > 0) == (metric.better == "lower")) == worse


def _hedges_g(x: Floats, y: Floats) -> float | None:
    described = (figure for z in (x, y) for figure in (z.mean(), z.std(ddof=1), len(z)))
    return _number(effectsize_smd(*described)[0])


def _summary(variant: str, runs: Runs) -> Summary:
    group = Group(runs)
    x = group.values
    mean, median, low, high = (
        _number(figure(x)) if len(x) else None for figure in (np.mean, np.median, np.min, np.max)
    )
    sd = _number(x.std(ddof=1)) if len(x) > 1 else None
    n, rate, interval = group.n - group.failed, None, None
    if n:
        rate = group.diverged / n
        interval = _interval(*stats.binomtest(group.diverged, n).proportion_ci(method="wilson"))
    counts = group.diverged, group.failed
    return Summary(variant, group.n, len(x), mean, median, sd, low, high, rate, interval, *counts)


def _checked(outcomes: Outcomes) -> Outcomes:
    for variant, runs in outcomes.items():
        for seed, value in runs.items():
            if not isinstance(value, Lost) and not math.isfinite(value):
                raise UserError(
                    f"{variant}, seed {seed}: the value is {value}; give a finite one, or Lost."
                )
    return outcomes


def _padded(outcomes: Outcomes) -> dict[str, Floats]:
    """Return arrays of one length, NaN where a run was lost or a group is shorter."""
    values = {name: Group(runs).values for name, runs in outcomes.items()}
    longest = max([1, *map(len, values.values())])
    return {
        name: np.pad(own, (0, longest - len(own)), constant_values=np.nan)
        for name, own in values.items()
    }


def _by_seed(outcomes: Outcomes) -> dict[str, Floats]:
    """Return arrays of all seeds, NaN where a variant has no value of one."""
    seeds = sorted({seed for runs in outcomes.values() for seed in runs})
    values = {
        name: [
            math.nan if isinstance(v := runs.get(seed, Lost.NO_FIGURE), Lost) else v
            for seed in seeds
        ]
        for name, runs in outcomes.items()
    }
    return {name: np.array(own, np.float64) for name, own in values.items()}


def _interval(low: float, high: float) -> Interval | None:
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


def _number(value: Any) -> float | None:
    """Return a number; None for NaN, and for what is beyond what a number holds."""
    return float(value) if math.isfinite(value) else None
