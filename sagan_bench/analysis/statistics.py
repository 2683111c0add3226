"""Outcomes of training runs -> comparisons with a baseline: pure functions, no reading of files.

The unit is a training run: sampling seeds are averaged within it beforehand. docs/statistics.md
states the rule, its reasons and its measured error rates.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from sagan_bench.analysis.verdicts import (
    Basis,
    Comparison,
    Floats,
    Interval,
    Metric,
    Outcomes,
    Pair,
    Runs,
    Standing,
    Summary,
    Verdict,
)
from sagan_bench.core.errors import UserError

ALPHA = 0.05
"""Chance of any false claim in a family of comparisons."""
POWER = 0.8
EXPLORATORY_N = 3
"""Attempted seeds in the smaller group from which intervals are given."""
CONFIRMATORY_N = 5
"""Attempted seeds in the smaller group from which verdicts are given."""
MOST_SEEDS = 1_000
_ROUNDING = 1e-9  # a spread below this share of the values is rounding, not spread


def summarize(outcomes: Outcomes) -> tuple[Summary, ...]:
    """Return one summary a variant, in the order given.

    Raises:
        UserError: A value is NaN or infinite.
    """
    return tuple(_summary(variant, runs) for variant, runs in _checked(outcomes).items())


def compare(
    outcomes: Outcomes,
    against: str | Sequence[Pair],
    metric: Metric,
    *,
    looks: int = 0,
    missing: int = 0,
) -> tuple[Comparison[Standing], ...]:
    """Compare variants with their baselines; together these comparisons are the family.

    ``better`` or ``worse`` needs all of: Holm's p < 0.05; a simultaneous interval without 0; an
    effect beyond the smallest that matters; and, if a run diverged, a rank test that agrees.
    ``no meaningful difference`` needs an interval within plus or minus the smallest effect that
    matters, and no diverged run. Two groups without spread allow neither, whatever their means.

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
    p_holm: Any


def _welch(variants: Floats, baselines: Floats) -> _Welch:
    """Test the family (..., m, n) against (..., m or 1, n); NaN where a value is missing."""
    with warnings.catch_warnings():  # of groups too small, empty or constant: NaN is the answer
        warnings.simplefilter("ignore", RuntimeWarning)
        effect = np.nanmean(variants, axis=-1) - np.nanmean(baselines, axis=-1)
        test = stats.ttest_ind(variants, baselines, axis=-1, equal_var=False, nan_policy="omit")
        undefined = np.isnan(test.pvalue) | (_constant(variants) & _constant(baselines))
    together = test.confidence_interval(1 - ALPHA / variants.shape[-2])
    alone = test.confidence_interval(1 - ALPHA)
    p_holm = np.apply_along_axis(_holm, -1, np.nan_to_num(test.pvalue, nan=1.0))
    bounds = (together.low, together.high, alone.low, alone.high, test.pvalue, p_holm)
    return _Welch(effect, *(np.where(undefined, np.nan, value) for value in bounds))


def _constant(groups: Floats) -> Any:
    spread = np.nanmax(groups, axis=-1) - np.nanmin(groups, axis=-1)
    return spread <= _ROUNDING * np.nanmax(np.abs(groups), axis=-1)


def _holm(p: Floats) -> Floats:
    return multipletests(p, ALPHA, method="holm")[1]


def _verdicts(welch: _Welch, metric: Metric) -> NDArray[np.str_]:
    """Apply the rule to arrays (..., m), before divergence counts; NaN is inconclusive."""
    least = metric.min_effect
    differs = (welch.p_holm < ALPHA) & ((welch.low > 0) | (welch.high < 0))
    claimed = differs & (np.abs(welch.effect) > least)
    improved = (welch.effect > 0) == (metric.better == "higher")
    within = (-least <= welch.low) & (welch.high <= least)
    verdicts = [Verdict.BETTER.value, Verdict.WORSE.value, Verdict.SAME.value]
    return np.select([claimed & improved, claimed, within], verdicts, Verdict.INCONCLUSIVE.value)


def _comparison(
    outcomes: Outcomes,
    pair: Pair,
    metric: Metric,
    standing_of: Callable[[int], Standing],
    welch: _Welch,
    alpha: float,
) -> Comparison[Standing]:
    runs, others = (outcomes[name] for name in pair)
    x, y = _finite(runs), _finite(others)
    metric = metric.against(y.mean() if len(y) else 0.0)
    counts = (len(runs), len(x), len(others), len(y))
    standing = standing_of(min(len(runs), len(others)))
    effect = _number(welch.effect)
    points = Comparison(*pair, *counts, effect, standing, min_effect=metric.min_effect)
    if standing.basis is Basis.POINTS:
        return points
    p_better, p_rank = _ranks(runs, others, metric)
    diverged = len(x) + len(y) < len(runs) + len(others)
    verdict = Verdict(_verdicts(welch, metric).item())
    if diverged and not _survives(verdict, p_better, p_rank):
        verdict = Verdict.INCONCLUSIVE
    tested, confirmatory = not math.isnan(welch.p), standing.basis is Basis.CONFIRMATORY
    sought = tested and confirmatory and verdict is Verdict.INCONCLUSIVE
    return replace(
        points,
        interval=_interval(welch.low, welch.high),
        interval_alone=_interval(welch.low_alone, welch.high_alone),
        p=_number(welch.p),
        p_holm=_number(welch.p_holm),
        p_rank=p_rank if diverged else None,
        hedges_g=_hedges_g(x, y) if tested else None,
        p_better=p_better,
        verdict=verdict if confirmatory else None,
        seeds_needed=_seeds_needed(x, y, metric, alpha) if sought else None,
    )


def _standing(n: int, looks: int, missing: int) -> Standing:
    if n < EXPLORATORY_N:
        return Standing(Basis.POINTS)
    if missing:
        return Standing(Basis.PROVISIONAL, missing=missing)
    is_exploratory = looks or n < CONFIRMATORY_N
    return Standing(Basis.EXPLORATORY if is_exploratory else Basis.CONFIRMATORY, looks=looks)


def _ranks(runs: Runs, others: Runs, metric: Metric) -> tuple[float, float]:
    """Return P(better) and the two-sided p of Mann-Whitney, diverged runs ranked worst."""
    sign = 1 if metric.better == "higher" else -1
    x, y = (
        [-math.inf if value is None else sign * value for value in group.values()]
        for group in (runs, others)
    )
    u, p = stats.mannwhitneyu(x, y)
    return float(u / (len(x) * len(y))), float(p)


def _survives(verdict: Verdict, p_better: float, p_rank: float) -> bool:
    """Only a claim can: a diverged run is further off than any difference that does not matter."""
    return p_rank < ALPHA and verdict is (Verdict.BETTER if p_better > 0.5 else Verdict.WORSE)


def _hedges_g(x: Floats, y: Floats) -> float:
    described = (figure for z in (x, y) for figure in (z.mean(), z.std(ddof=1), len(z)))
    return float(effectsize_smd(*described)[0])


def _seeds_needed(x: Floats, y: Floats, metric: Metric, alpha: float) -> int | None:
    sd = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    effect, least = abs(x.mean() - y.mean()) / sd, metric.min_effect / sd

    def enough(n: int) -> bool:
        error = math.sqrt(2 / n)
        if effect > least:
            power = TTestIndPower().power(effect, n, alpha / 2, alternative="larger")
            beyond = stats.norm.cdf((effect - least) / error)
            return not min(power, beyond) < POWER  # statsmodels: NaN where power is 1 to rounding
        room = least - stats.t.isf(alpha / 2, 2 * n - 2) * error  # for the estimate, either way
        within = stats.norm.cdf((room - effect) / error) - stats.norm.cdf((-room - effect) / error)
        return bool(within >= POWER)

    n = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=enough)
    return n if min(len(x), len(y)) < n <= MOST_SEEDS else None


def _summary(variant: str, runs: Runs) -> Summary:
    x, n = _finite(runs), len(runs)
    mean, median, low, high = (
        float(figure(x)) if len(x) else None for figure in (np.mean, np.median, np.min, np.max)
    )
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    lost = n - len(x)
    wilson = stats.binomtest(lost, n).proportion_ci(method="wilson") if n else None
    rate, interval = (lost / n, _interval(*wilson)) if wilson else (None, None)
    return Summary(variant, n, len(x), mean, median, sd, low, high, rate, interval)


def _checked(outcomes: Outcomes) -> Outcomes:
    for variant, runs in outcomes.items():
        for seed, value in runs.items():
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"{variant}, seed {seed}: the value is {value}; give None for a diverged run."
                )
    return outcomes


def _finite(runs: Runs) -> Floats:
    return np.array([value for value in runs.values() if value is not None], dtype=np.float64)


def _padded(outcomes: Outcomes) -> dict[str, Floats]:
    """Return arrays of one length, NaN where a run diverged or a group is shorter."""
    longest = max([1, *map(len, outcomes.values())])
    return {
        name: np.array([*runs.values(), *[None] * (longest - len(runs))], dtype=np.float64)
        for name, runs in outcomes.items()
    }


def _interval(low: float, high: float) -> Interval | None:
    return None if math.isnan(low) else (float(low), float(high))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
