"""What a difference is worth at each budget: steps, FLOPs or seconds of training.

Steps are not cost: a block may win at equal steps and lose at equal FLOPs.  Of scores taken on the
way each pair of variants is compared at `POINTS` budgets, equally far apart from where both sides
have a score to what the cheaper side spent in all.  The intervals of a unit hold at all of its
budgets, and for all pairs, at once with 95 % (Bonferroni; neighbouring budgets are correlated, so
they are somewhat wider than need be).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from scipy import stats

from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import ALPHA, Interval, Pair
from sagan_bench.runs.run import Curve

POINTS = 8
"""Budgets at which a pair is compared."""


class Unit(StrEnum):
    """What a budget is counted in; its value is the key in JSON."""

    STEPS = "steps"
    FLOPS = "flops"
    SECONDS = "seconds"


class Withheld(StrEnum):
    """Why there is no curve."""

    NO_SCORES = "no scores on the way"
    NO_COST = "not recorded"
    SHARED_DEVICE = "shared device"
    OTHER_DEVICES = "other devices"
    NO_COMMON_BUDGET = "no common budget"
    TOO_FEW = "too few runs"


@dataclass(frozen=True)
class Spent:
    """The scores of one variant's runs on the way, and what a step of them costs.

    Attributes:
        curves: (step, value) of each run that has a result, by step.
        per_step: what a step costs in each unit; None where that was not recorded.
        shared_device: the runs shared a device, so that their seconds tell of each other.
    """

    curves: tuple[Curve, ...]
    per_step: Mapping[Unit, float | None]
    shared_device: bool = False


@dataclass(frozen=True)
class BudgetPoint:
    """The difference at one budget: mean of the variant minus that of the baseline."""

    budget: float
    effect: float
    interval: Interval | None
    """Simultaneous with those of all budgets of the unit and all pairs; None without a spread."""


@dataclass(frozen=True)
class BudgetCurve:
    """One pair's differences against the budget in one unit.

    Attributes:
        crosses: the least budget from which on the estimated difference stays beyond the margin,
            on the side where it ends; between two budgets by a straight line.  None: never.
        excludes_margin: the least of the budgets from which on the whole interval lies beyond it.
        margin: the smallest difference that matters, in units of the metric.
        runs: of the variant and of the baseline, that have a curve.
        attempted: of these, all.
        basis: how much may be said: the value of a `Basis`.
    """

    variant: str
    baseline: str
    unit: Unit
    margin: float
    runs: tuple[int, int]
    points: tuple[BudgetPoint, ...] = ()
    crosses: float | None = None
    excludes_margin: float | None = None
    withheld: Withheld | None = field(default=None)
    attempted: tuple[int, int] = (0, 0)
    basis: str = ""


def by_budget(
    spent: Mapping[str, Spent], pairs: Sequence[Pair], margin: Callable[[str], float]
) -> tuple[BudgetCurve, ...]:
    """Return the differences of each pair in each unit of which it is known what a step costs.

    Args:
        spent: variant -> its runs.
        pairs: variants and their baselines; together they are the family.
        margin: of a baseline's name: the smallest difference that matters, in the metric's units.
    """
    return tuple(
        _curve(pair, unit, spent[pair[0]], spent[pair[1]], margin(pair[1]), len(pairs))
        for unit in Unit
        if any(of.per_step.get(unit) for of in spent.values())
        for pair in pairs
    )


def _curve(
    pair: Pair, unit: Unit, ours: Spent, theirs: Spent, margin: float, family: int
) -> BudgetCurve:
    runs = len(ours.curves), len(theirs.curves)
    rates = ours.per_step.get(unit), theirs.per_step.get(unit)
    if not all(len(curve) > 1 for side in (ours, theirs) for curve in side.curves):
        return BudgetCurve(*pair, unit, margin, runs, withheld=Withheld.NO_SCORES)
    if min(runs) < CONFIRMATORY_N:
        return BudgetCurve(*pair, unit, margin, runs, withheld=Withheld.TOO_FEW)
    if not rates[0] or not rates[1]:
        return BudgetCurve(*pair, unit, margin, runs, withheld=Withheld.NO_COST)
    if unit == Unit.SECONDS and (ours.shared_device or theirs.shared_device):
        return BudgetCurve(*pair, unit, margin, runs, withheld=Withheld.SHARED_DEVICE)
    sides = (ours, rates[0]), (theirs, rates[1])
    first = max(rate * curve[0][0] for side, rate in sides for curve in side.curves)
    last = min(rate * curve[-1][0] for side, rate in sides for curve in side.curves)
    if first >= last:
        return BudgetCurve(*pair, unit, margin, runs, withheld=Withheld.NO_COMMON_BUDGET)
    budgets = np.linspace(first, last, POINTS)
    mine, other = (
        np.stack([_at(curve, budgets / rate) for curve in side.curves]) for side, rate in sides
    )
    points = _points(budgets, mine, other, ALPHA / (POINTS * family))
    return BudgetCurve(
        *pair, unit, margin, runs, points, _crosses(points, margin), _excludes(points, margin)
    )


def _at(curve: Curve, steps: np.ndarray) -> np.ndarray:
    """Return the values at ``steps``, between the two scores around each."""
    return np.interp(steps, [step for step, _ in curve], [value for _, value in curve])


def _points(
    budgets: np.ndarray, ours: np.ndarray, theirs: np.ndarray, alpha: float
) -> tuple[BudgetPoint, ...]:
    """Compare runs (n, points) with runs (m, points) at each point, by Welch's interval."""
    with warnings.catch_warnings():  # of points without a spread: they have no interval
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(1 - alpha)
    effects = ours.mean(axis=0) - theirs.mean(axis=0)
    rows = zip(budgets, effects, interval.low, interval.high, strict=True)
    return tuple(
        BudgetPoint(
            float(budget),
            float(effect),
            (float(low), float(high)) if np.isfinite([low, high]).all() and low < high else None,
        )
        for budget, effect, low, high in rows
    )


def _crosses(points: Sequence[BudgetPoint], margin: float) -> float | None:
    """Return where the estimate crosses the margin for the last time; the first point if always."""
    sign = 1 if points[-1].effect > 0 else -1
    beyond = [sign * point.effect - margin for point in points]
    if beyond[-1] <= 0:
        return None
    within = [place for place, excess in enumerate(beyond) if excess <= 0]
    if not within:
        return points[0].budget
    k = within[-1]
    share = -beyond[k] / (beyond[k + 1] - beyond[k])
    return points[k].budget + share * (points[k + 1].budget - points[k].budget)


def _excludes(points: Sequence[BudgetPoint], margin: float) -> float | None:
    """Return the first budget from which on every interval lies beyond the margin, to one side."""
    since: float | None = None
    side = 0
    for point in points:
        low, high = point.interval or (-margin, margin)
        now = 1 if low > margin else -1 if high < -margin else 0
        if now == 0:
            since = None
        elif since is None or now != side:
            since = point.budget
        side = now
    return since
