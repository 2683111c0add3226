"""Outcomes of training runs -> comparisons with a baseline: pure functions, no reading of files.

The unit is a training run: sampling seeds are averaged within it beforehand. docs/statistics.md
states the rule, its reasons and its measured error rates.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from statistics import fmean
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from sagan_bench.core.errors import UserError

ALPHA = 0.05
"""Chance of any false claim in a family of comparisons."""
POWER = 0.8
EXPLORATORY_N = 3
"""Attempted seeds in the smaller group from which intervals are given."""
CONFIRMATORY_N = 5
"""Attempted seeds in the smaller group from which verdicts are given."""
MOST_SEEDS = 1_000
SETTLED_CHANGE = 0.05
"""A curve that moves by no more, relative to its level, over its last fifth has settled."""
_ROUNDING = 1e-9  # a spread below this share of the values is rounding, not spread

Runs = Mapping[int, float | None]
"""Training seed -> value of the primary metric; None for a run that diverged or failed."""
Outcomes = Mapping[str, Runs]
"""Variant -> its runs."""
Pair = tuple[str, str]
"""A variant and its baseline."""
Interval = tuple[float, float]
Verdict = Literal["better", "worse", "no meaningful difference", "inconclusive"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """The primary metric, chosen before looking.

    Attributes:
        label: Its name as readers see it, such as ``FID[effnet-lite0]``.
        better: Which values are better.
        min_effect: Smallest difference that matters, 0 or more: in units of the metric, or, if
            ``relative``, as a share of the baseline's mean.
        blind_to: What it hardly sees; where no difference is shown, the sentence says so.

    Raises:
        UserError: A field is out of its range.
    """

    label: str
    better: Literal["lower", "higher"]
    min_effect: float
    blind_to: str = ""
    relative: bool = False

    def against(self, baseline_mean: float) -> "Metric":
        """Return the metric with its smallest difference that matters in units of the metric."""
        least = self.min_effect * (abs(baseline_mean) if self.relative else 1)
        return replace(self, min_effect=least, relative=False)

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise UserError(f"{self.label}: better is {self.better!r}; say 'lower' or 'higher'.")
        if not 0 <= self.min_effect < math.inf:
            raise UserError(
                f"{self.label}: the smallest effect that matters is {self.min_effect}; "
                "give a finite number, 0 or more, in units of the metric."
            )


@dataclass(frozen=True)
class Summary:
    """One variant's runs: figures of the finite values, null where there are too few."""

    variant: str
    n: int  # attempted seeds
    n_ok: int
    mean: float | None
    median: float | None
    sd: float | None  # of a sample: divisor n_ok - 1
    min: float | None
    max: float | None
    divergence_rate: float | None
    divergence_interval: Interval | None  # Wilson, 95 %


@dataclass(frozen=True)
class Comparison:
    """One variant against the baseline; null is what the runs at hand cannot give.

    Attributes:
        n: Attempted seeds of the variant, of which ``n_ok`` gave a value; likewise the baseline.
        effect: Mean of the variant minus that of the baseline, in units of the metric.
        standing: "points only", "provisional: 3 runs still to come", "exploratory", "exploratory
            after 2 looks" or "confirmatory".
        interval: Welch interval of the effect; those of a family all hold at once with 95 %
            (Bonferroni). This one decides.
        interval_alone: Welch interval of the effect, 95 % for this comparison alone.
        p: Welch's t test, two-sided; ``p_holm`` is corrected by Holm over the family.
        p_rank: Mann-Whitney, two-sided, diverged runs ranked worst; only where a run diverged.
        hedges_g: Effect in pooled standard deviations, corrected for small samples.
        p_better: Chance that a run of the variant beats one of the baseline, U / (n * m): ties
            count half, and a diverged run loses to any other.
        verdict: Only where confirmatory.
        seeds_needed: Where inconclusive: seeds per group with which, if the effect is the true
            difference, there is a verdict with power 0.8: a claim where it is larger than the
            smallest that matters, else *no meaningful difference*. Null if over 1,000, or no more
            than the smaller group has.
        min_effect: Smallest difference that matters, in units of the metric.
    """

    variant: str
    baseline: str
    n: int
    n_ok: int
    n_baseline: int
    n_baseline_ok: int
    effect: float | None
    standing: str
    interval: Interval | None = None
    interval_alone: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    p_rank: float | None = None
    hedges_g: float | None = None
    p_better: float | None = None
    verdict: Verdict | None = None
    seeds_needed: int | None = None
    min_effect: float = 0.0


class Ending(StrEnum):
    """Whether a curve had settled at its end."""

    SETTLED = "had settled"
    UNSETTLED = "had not settled"
    UNKNOWN = "may not have settled"


@dataclass(frozen=True)
class Settling:
    """How a curve ended: its relative change over the last fifth, and its standard error."""

    change: float | None
    standard_error: float | None
    state: Ending


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
) -> tuple[Comparison, ...]:
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


def sentence(comparison: Comparison, metric: Metric, unit: str = "runs") -> str:
    """Return the comparison in words and figures; a null result is never called "no help"."""
    c = comparison
    parts = [f"{_headline(c)}: {_figures(c, metric)}"]
    for name, n, n_ok in (c.variant, c.n, c.n_ok), (c.baseline, c.n_baseline, c.n_baseline_ok):
        if n_ok < n:
            parts.append(f"{n - n_ok} of {n} {unit} of {name} diverged or failed")
    if c.verdict and c.p is None:
        parts.append("no t test: too few values, or no spread in either group")
    if c.seeds_needed and c.effect is not None:
        larger = "a difference as large as this"
        smaller = "that a difference as small as this does not matter"
        shown = larger if abs(c.effect) > c.min_effect else smaller
        parts.append(f"about {c.seeds_needed} finished {unit} each would show {shown}")
    if metric.blind_to and c.verdict not in ("better", "worse"):
        parts.append(f"{metric.label} hardly sees {metric.blind_to}: of that this says nothing")
    return "; ".join(parts)


def settled(steps: Sequence[float], values: Sequence[float]) -> Settling:
    """Return whether a curve had settled, by the least-squares slope over its last fifth of steps.

    The change is slope times width of that window, relative to the mean there. The curve had
    settled if the change's 95 % interval (t, points taken as independent) lies within 5 % either
    way, and had not if it lies beyond. Fewer than 3 points there, or a mean of 0, cannot tell.

    Raises:
        UserError: Steps do not rise, or are not as many as the values, or a value is not finite.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or not (np.diff(x) > 0).all() or not np.isfinite(y).all():
        raise UserError("A curve needs rising steps and one finite value for each; check both.")
    late = x >= x[-1] - 0.2 * np.ptp(x) if len(x) else x > 0
    x, y = x[late], y[late]
    if len(x) < 3 or y.mean() == 0:
        return Settling(None, None, Ending.UNKNOWN)
    fit = stats.linregress(x, y)
    scale = np.ptp(x) / abs(y.mean())
    error = 0.0 if math.isnan(fit.stderr) else float(fit.stderr * scale)  # NaN: a constant
    change = float(fit.slope * scale)
    margin = stats.t.isf(ALPHA / 2, len(x) - 2) * error
    if abs(change) + margin <= SETTLED_CHANGE:
        return Settling(change, error, Ending.SETTLED)
    beyond = abs(change) - margin > SETTLED_CHANGE
    return Settling(change, error, Ending.UNSETTLED if beyond else Ending.UNKNOWN)


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
    found = (together.low, together.high, alone.low, alone.high, test.pvalue, p_holm)
    return _Welch(effect, *(np.where(undefined, np.nan, value) for value in found))


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
    words = ["better", "worse", "no meaningful difference"]
    return np.select([claimed & improved, claimed, within], words, "inconclusive")


def _comparison(
    outcomes: Outcomes,
    pair: Pair,
    metric: Metric,
    standing_of: Callable[[int], str],
    welch: _Welch,
    alpha: float,
) -> Comparison:
    runs, others = (outcomes[name] for name in pair)
    x, y = _finite(runs), _finite(others)
    metric = metric.against(y.mean() if len(y) else 0.0)
    counts = (len(runs), len(x), len(others), len(y))
    standing = standing_of(min(len(runs), len(others)))
    effect = _number(welch.effect)
    points = Comparison(*pair, *counts, effect, standing, min_effect=metric.min_effect)
    if standing == "points only":
        return points
    p_better, p_rank = _ranks(runs, others, metric)
    diverged = len(x) + len(y) < len(runs) + len(others)
    verdict = cast(Verdict, _verdicts(welch, metric).item())
    if diverged and not _survives(verdict, p_better, p_rank):
        verdict = "inconclusive"
    tested, confirmatory = not math.isnan(welch.p), standing == "confirmatory"
    sought = tested and confirmatory and verdict == "inconclusive"
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


def _standing(n: int, looks: int, missing: int) -> str:
    if n < EXPLORATORY_N:
        return "points only"
    if missing:
        return f"provisional: {missing} run{'s' * (missing > 1)} still to come"
    if looks:
        return f"exploratory after {looks} look{'s' * (looks > 1)}"
    return "exploratory" if n < CONFIRMATORY_N else "confirmatory"


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
    return p_rank < ALPHA and verdict == ("better" if p_better > 0.5 else "worse")


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


def _headline(c: Comparison) -> str:
    if c.verdict is None:
        return f"{c.variant} against {c.baseline} ({c.standing}, no verdict)"
    if c.verdict == "inconclusive":
        return f"inconclusive whether {c.variant} differs from {c.baseline}"
    if c.verdict == "no meaningful difference":
        return f"{c.variant} is within ±{c.min_effect:.3g} of {c.baseline}, {c.verdict}"
    return f"{c.variant} is {c.verdict} than {c.baseline}"


def _figures(c: Comparison, metric: Metric) -> str:
    effect = "not to be compared" if c.effect is None else f"{c.effect:+.3g}"
    interval = " [{:.3g}, {:.3g}]".format(*c.interval) if c.interval else ""
    figures = [f"{metric.label} {effect}{interval}", f"n = {c.n} v {c.n_baseline}"]
    if c.verdict and c.p_holm is not None:
        figures.append("Holm p < 0.001" if c.p_holm < 0.001 else f"Holm p = {c.p_holm:.2g}")
    if c.p_better is not None:
        figures.append(f"P(better) {c.p_better:.2f}")
    return ", ".join(figures)


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
