"""Outcomes of training runs -> comparisons with a baseline: pure functions, no reading of files.

The unit is a training run: sampling seeds are averaged within it beforehand. docs/statistics.md
states the rule, its reasons and its measured error rates.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd

from sagan_bench.analysis.groups import Group, newcombe
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
_ROUNDING = 1e-9  # a spread below this share of the values is rounding, not spread


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

    Raises:
        UserError: A variant or baseline is missing, or a value is NaN or infinite.
    """
    pairs = _pairs(_checked(outcomes), against)
    if not pairs:
        return ()
    groups = _padded(outcomes)
    variants, baselines = (np.stack([groups[pair[side]] for pair in pairs]) for side in (0, 1))
    family = zip(pairs, np.transpose(_welch(variants, baselines)), strict=True)
    standing = partial(_standing, looks=looks, missing=missing)
    return tuple(
        _comparison(outcomes, pair, metric, standing, _Welch(*row), ALPHA / len(pairs))
        for pair, row in family
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


class _Welch(NamedTuple):
    """Each variant of a family against the baseline: arrays (..., m), NaN where undefined."""

    effect: Any
    low: Any
    high: Any
    low_alone: Any
    high_alone: Any
    p: Any
    p_bonferroni: Any


def _welch(variants: Floats, baselines: Floats) -> _Welch:
    """Test the family (..., m, n) against (..., m or 1, n); NaN where a value is missing."""
    with warnings.catch_warnings():  # of groups too small, empty or constant: NaN is the answer
        warnings.simplefilter("ignore", RuntimeWarning)
        effect = np.nanmean(variants, axis=-1) - np.nanmean(baselines, axis=-1)
        test = stats.ttest_ind(variants, baselines, axis=-1, equal_var=False, nan_policy="omit")
        undefined = np.isnan(test.pvalue) | (_constant(variants) & _constant(baselines))
    together = test.confidence_interval(1 - ALPHA / variants.shape[-2])
    alone = test.confidence_interval(1 - ALPHA)
    corrected = np.minimum(1, test.pvalue * variants.shape[-2])
    bounds = (together.low, together.high, alone.low, alone.high, test.pvalue, corrected)
    return _Welch(effect, *(np.where(undefined, np.nan, value) for value in bounds))


def _constant(groups: Floats) -> Any:
    spread = np.nanmax(groups, axis=-1) - np.nanmin(groups, axis=-1)
    return spread <= _ROUNDING * np.nanmax(np.abs(groups), axis=-1)


def _verdicts(welch: _Welch, metric: Metric) -> NDArray[np.str_]:
    """Apply the rule to arrays (..., m), before lost runs count; NaN is inconclusive."""
    least = metric.min_effect
    differs = (welch.low > 0) | (welch.high < 0)
    claimed = differs & (np.abs(welch.effect) > least)
    beyond = claimed & (least > 0) & ((welch.low > least) | (welch.high < -least))
    improved = (welch.effect > 0) == (metric.better == "higher")
    rules = {
        Verdict.BETTER_AS_MATTERS: beyond & improved,
        Verdict.WORSE_AS_MATTERS: beyond,
        Verdict.BETTER: claimed & improved,
        Verdict.WORSE: claimed,
        Verdict.SAME: (-least <= welch.low) & (welch.high <= least),
        Verdict.DIFFERS: differs,
    }
    names = [verdict.value for verdict in rules]
    return np.select(list(rules.values()), names, Verdict.INCONCLUSIVE.value)


def _comparison(
    outcomes: Outcomes,
    pair: Pair,
    metric: Metric,
    standing_of: Callable[[int], Standing],
    welch: _Welch,
    alpha: float,
) -> Comparison[Standing]:
    ours, theirs = (Group(outcomes[name]) for name in pair)
    x, y = ours.values, theirs.values
    metric = metric.against(y.mean() if len(y) else 0.0)
    standing = standing_of(min(ours.n, theirs.n))
    points: Comparison[Standing] = Comparison(
        *pair,
        *(ours.n, len(x), theirs.n, len(y)),
        _number(welch.effect),
        standing,
        min_effect=metric.min_effect,
        n_diverged=ours.diverged,
        n_failed=ours.failed,
        n_baseline_diverged=theirs.diverged,
        n_baseline_failed=theirs.failed,
    )
    if standing.basis is Basis.POINTS:
        return points
    return _tested(points, ours, theirs, metric, welch, alpha)


def _tested(
    points: Comparison[Standing],
    ours: Group,
    theirs: Group,
    metric: Metric,
    welch: _Welch,
    alpha: float,
) -> Comparison[Standing]:
    """Return a comparison of enough runs with its intervals, and the verdict they allow."""
    x, y = ours.values, theirs.values
    p_rank = ours.p_rank(theirs, metric)
    p_divergence = min(p_rank, ours.p_all_or_none(theirs))
    verdict = Verdict(_verdicts(welch, metric).item())
    if ours.lost or theirs.lost:
        verdict = _with_lost_runs(verdict, ours, theirs, metric, p_rank, p_divergence <= alpha)
    tested, confirmatory = not math.isnan(welch.p), points.standing.basis is Basis.CONFIRMATORY
    sought = tested and confirmatory and verdict is Verdict.INCONCLUSIVE
    needed = seeds_needed(x, y, metric, alpha) if sought else None
    pairs = ours.ranked * theirs.ranked
    p_better = ours.p_better(theirs, metric, worst=(Lost.DIVERGED,)) if pairs else None
    return replace(
        points,
        interval=_interval(welch.low, welch.high),
        interval_alone=_interval(welch.low_alone, welch.high_alone),
        p=_number(welch.p),
        p_bonferroni=_number(welch.p_bonferroni),
        p_rank=p_rank if ours.lost or theirs.lost else None,
        p_divergence=p_divergence if verdict.is_by_divergence else None,
        hedges_g=_hedges_g(x, y) if tested else None,
        p_better=p_better,
        pairs=pairs or None,
        p_better_interval=None
        if p_better is None
        else newcombe(p_better, ours.ranked, theirs.ranked),
        verdict=verdict if confirmatory else None,
        seeds_needed=needed and needed[0],
        seeds_range=needed and needed[1],
    )


def _standing(n: int, looks: int, missing: int) -> Standing:
    if n < EXPLORATORY_N:
        return Standing(Basis.POINTS)
    if missing:
        return Standing(Basis.PROVISIONAL, missing=missing)
    is_exploratory = looks or n < CONFIRMATORY_N
    return Standing(Basis.EXPLORATORY if is_exploratory else Basis.CONFIRMATORY, looks=looks)


def _with_lost_runs(
    verdict: Verdict, ours: Group, theirs: Group, metric: Metric, p_rank: float, diverges: bool
) -> Verdict:
    """Return what is left of a verdict, or what the diverged runs show alone.

    A claim is left if ranks agree, lost runs worst; nothing else is, because a lost run is further
    off than any difference that does not matter.  *By divergence* needs ranks at the family's
    level, more diverged runs on the worse side, none that failed, and means that do not contradict.
    Fewer than 3 values have no say.
    """
    p_better = ours.p_better(theirs, metric, worst=[*Lost])
    worse, few = p_better < 0.5, min(len(ours.values), len(theirs.values)) < EXPLORATORY_N
    agrees = verdict.is_worse if worse else verdict.is_better
    if agrees and p_rank < ALPHA and not few:
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


def _interval(low: float, high: float) -> Interval | None:
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


def _number(value: Any) -> float | None:
    """Return a number; None for NaN, and for what is beyond what a number holds."""
    return float(value) if math.isfinite(value) else None
