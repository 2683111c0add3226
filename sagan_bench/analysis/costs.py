"""Steps are not cost: whether a verdict at equal steps holds for what the sides compute."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np

from sagan_bench.analysis import budget
from sagan_bench.analysis.budget import BudgetCurve, Spent, Unit, Withheld
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.variants import median_of
from sagan_bench.analysis.verdicts import Basis, Comparison, Pair, Runs, Standing, Verdict
from sagan_bench.config.diff import differences
from sagan_bench.runs.run import Curve


class Absence(StrEnum):
    """Why there is nothing to read."""

    NOT_SCORED = "not scored"
    NO_CURVES = "no curves"
    OTHER_PROTOCOLS = "other protocols"
    NO_COSTS = "no costs"
    SHARED_DEVICE = "shared device"
    OTHER_DEVICES = "other devices"
    NO_COMMON_BUDGET = "no common budget"


AS_MANY = 0.01
"""By which share FLOPs a step may differ and be called as many."""
Comparisons = Sequence[Comparison[Standing]]


def with_cost(
    primary: Comparisons, at_equal_flops: Comparisons, runs: RunSet
) -> tuple[Comparison[Standing], ...]:
    """Return the comparisons at equal steps with ``shown_per_flop``.

    A verdict that prefers the side that computes more a step holds per FLOP if it says as much at
    equal FLOPs, or against a control without attention that computes as many.
    """
    at_equal = {c: next((e for e in at_equal_flops if is_of(e, c)), None) for c in primary}
    return tuple(
        replace(c, shown_per_flop=_shown_per_flop(c, at_equal[c], primary, runs)) for c in primary
    )


def _shown_per_flop(
    comparison: Comparison[Standing],
    at_equal: Comparison[Standing] | None,
    primary: Comparisons,
    runs: RunSet,
) -> bool | None:
    names = comparison.variant, comparison.baseline
    sides = _sides(comparison.verdict, *names)
    if sides is None or not prefers_costlier(comparison, runs.flops_per_step):
        return None
    preferred, cost = sides[0], runs.flops_per_step(sides[0])
    strength = _STRENGTH[comparison.verdict]
    shown = [at_equal.verdict] if at_equal and _sides(at_equal.verdict, *names) == sides else []
    shown += _over_controls(preferred, cost, primary, runs)
    return any(_STRENGTH.get(verdict, 0) >= strength for verdict in shown)


def prefers_costlier(
    comparison: Comparison[Standing], flops_per_step: Callable[[str], int]
) -> bool:
    """Return whether a verdict on means prefers the side that computes more a step.

    So it may, where that is known of one side alone (0: not known); of neither, it is no matter.
    """
    sides = _sides(comparison.verdict, comparison.variant, comparison.baseline)
    if sides is None or comparison.verdict not in _STRENGTH:
        return False
    preferred, other = map(flops_per_step, sides)
    return preferred > (1 + AS_MANY) * other or bool(preferred) != bool(other)


def _over_controls(
    preferred: str, cost: int, primary: Comparisons, runs: RunSet
) -> Iterator[Verdict | None]:
    """Yield the verdicts that prefer a variant to itself without attention at as many FLOPs."""
    for comparison in primary:
        sides = _sides(comparison.verdict, comparison.variant, comparison.baseline)
        if sides and sides[0] == preferred and runs.lacks_attention(sides[1]):
            as_many = abs(runs.flops_per_step(sides[1]) - cost) <= AS_MANY * cost
            settings = [runs.variants[name][0].settings for name in sides]
            differing = (pair.key for pair in differences(*settings))
            if as_many and all(key.startswith("model.attention.") for key in differing):
                yield comparison.verdict


def _sides(verdict: Verdict | None, variant: str, baseline: str) -> tuple[str, str] | None:
    """Return which of two a verdict prefers, and the other; None if neither."""
    if verdict is None or not (verdict.is_better or verdict.is_worse):
        return None
    return (variant, baseline) if verdict.is_better else (baseline, variant)


_STRENGTH: dict[Verdict | None, int] = {
    Verdict.BETTER: 1,
    Verdict.WORSE: 1,
    Verdict.BETTER_AS_MATTERS: 2,
    Verdict.WORSE_AS_MATTERS: 2,
}


# --- Scores on the way -------------------------------------------------------------------------


def on_the_way(metric: str, runs: RunSet) -> Absence | None:
    """Return why scores on the way cannot be read; None if they can."""
    if not all(run.lost or run.curve(metric) for run in runs.attempted):
        return Absence.NO_CURVES
    protocols = {
        its_family
        for run in runs.attempted
        for its_family, score in run.scores
        if not score.final and score.weights == "ema" and metric in score.metrics
    }
    return Absence.OTHER_PROTOCOLS if len(protocols) > 1 else None


def at_equal(
    unit: Unit, pairs: Sequence[Pair], metric: str, runs: RunSet
) -> tuple[dict[str, Runs], dict[Pair, Absence]]:
    """Return the outcomes of pairs where both sides had spent as much, and why others have none.

    They are read at the last budget at which both were scored, between the two scores around it,
    and are called ``variant: variant v baseline``.
    """
    outcomes, absences = dict[str, Runs](), dict[Pair, Absence]()
    for pair in pairs:
        of = {name: _spent(name, metric, runs) for name in pair}
        rates = {name: of[name].per_step[unit] or 0.0 for name in pair}
        if absence := _without(unit, pair, runs, all(rates.values())):
            absences[pair] = absence
            continue
        ends = [[rates[name] * curve[end][0] for name in pair for curve in of[name].curves]
                for end in (0, -1)]  # fmt: skip
        least = min(ends[1], default=runs.steps * min(rates.values()))
        if max(ends[0], default=0) > least:
            absences[pair] = Absence.NO_COMMON_BUDGET
            continue
        for name in pair:
            step = least / rates[name]
            outcomes[of_pair(name, pair)] = {
                run.seed: runs.outcome(run, lambda run, step=step: _at(run.curve(metric), step))  # type: ignore[misc]
                for run in runs.variants[name]
            }
    return outcomes, absences


def of_pair(name: str, pair: Pair) -> str:
    """Return what a variant is called where it is read at the budget of a pair."""
    return f"{name}: {' v '.join(pair)}"


def is_of(comparison: Comparison[Any], primary: Comparison[Any]) -> bool:
    """Return whether a reading's comparison is of the pair of a primary one."""
    baseline = comparison.baseline.removesuffix(f" (budget of {primary.variant})")
    return (comparison.variant, baseline) == (primary.variant, primary.baseline)


def _without(unit: Unit, pair: Pair, runs: RunSet, is_known: bool) -> Absence | None:
    """Return why the cost of a pair cannot be compared; None if it can."""
    if unit is Unit.SECONDS and any(map(runs.shared_device, pair)):
        return Absence.SHARED_DEVICE
    if unit is Unit.SECONDS and len(runs.devices(pair[0]) | runs.devices(pair[1])) > 1:
        return Absence.OTHER_DEVICES
    return None if is_known else Absence.NO_COSTS


def _at(curve: Curve, step: float) -> float:
    """Return the value at a step, between the two scores around it."""
    steps, values = zip(*curve, strict=True)
    return float(np.interp(step, steps, values))


def by_budget(primary: Comparisons, metric: str, runs: RunSet) -> tuple[BudgetCurve, ...]:
    """Return the differences by budget; nothing where no run was scored on the way.

    Nor of comparisons that nothing is to be concluded from: too small, or of idle blocks.
    """
    said = [c for c in primary if c.standing.basis not in (Basis.TOO_SMALL, Basis.IDLE)]
    absent = on_the_way(metric, runs)
    if absent is Absence.OTHER_PROTOCOLS or not any(run.curve(metric) for run in runs.attempted):
        return ()
    margins = {c.baseline: c.min_effect for c in said}
    pairs = [(c.variant, c.baseline) for c in said]
    spent = {name: _spent(name, metric, runs) for pair in pairs for name in pair}
    curves = budget.by_budget(spent, pairs, margins.__getitem__)
    bases = {(c.variant, c.baseline): c.standing.basis for c in said}
    return tuple(_described(curve, bases[curve.variant, curve.baseline], runs) for curve in curves)


def _described(curve: BudgetCurve, basis: Basis, runs: RunSet) -> BudgetCurve:
    """Return a curve with how much it may say, and how many runs its sides had."""
    pair = curve.variant, curve.baseline
    if (
        curve.unit is Unit.SECONDS
        and _without(curve.unit, pair, runs, True) is Absence.OTHER_DEVICES
    ):
        curve = BudgetCurve(
            *pair, curve.unit, curve.margin, curve.runs, withheld=Withheld.OTHER_DEVICES
        )
    attempted = len(runs.variants[pair[0]]), len(runs.variants[pair[1]])
    return replace(curve, attempted=attempted, basis=basis.value)


def _spent(name: str, metric: str, runs: RunSet) -> Spent:
    finished = [run for run in runs.variants[name] if not (run.lost or runs.has_collapsed(run))]
    seconds = median_of(run.record.cost.train_sec for run in finished)
    return Spent(
        curves=tuple(run.curve(metric) for run in finished),
        per_step={
            Unit.STEPS: 1.0,
            Unit.FLOPS: runs.flops_per_step(name) or None,
            Unit.SECONDS: seconds and seconds / runs.steps,
        },
        shared_device=runs.shared_device(name),
    )
