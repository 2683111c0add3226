"""Steps are not cost: whether a verdict at equal steps holds for what the sides compute."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sagan_bench.analysis import budget
from sagan_bench.analysis.budget import BudgetCurve, Spent, Unit
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.variants import median_of
from sagan_bench.analysis.verdicts import Comparison, Standing, Verdict

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
    at_equal = {c.variant: c for c in at_equal_flops}
    return tuple(
        replace(c, shown_per_flop=_shown_per_flop(c, at_equal.get(c.variant), primary, runs))
        for c in primary
    )


def _shown_per_flop(
    comparison: Comparison[Standing],
    at_equal: Comparison[Standing] | None,
    primary: Comparisons,
    runs: RunSet,
) -> bool | None:
    names = comparison.variant, comparison.baseline
    sides = _sides(comparison.verdict, *names)
    if sides is None or comparison.verdict not in _STRENGTH:
        return None
    preferred, other = sides
    cost = runs.flops_per_step(preferred)
    if cost <= (1 + AS_MANY) * runs.flops_per_step(other):
        return None
    strength = _STRENGTH[comparison.verdict]
    shown = [at_equal.verdict] if at_equal and _sides(at_equal.verdict, *names) == sides else []
    shown += _over_controls(preferred, cost, primary, runs)
    return any(_STRENGTH.get(verdict, 0) >= strength for verdict in shown)


def _over_controls(
    preferred: str, cost: int, primary: Comparisons, runs: RunSet
) -> Iterator[Verdict | None]:
    """Yield the verdicts that prefer a variant to one without attention of as many FLOPs."""
    for comparison in primary:
        sides = _sides(comparison.verdict, comparison.variant, comparison.baseline)
        if sides and sides[0] == preferred and runs.lacks_attention(sides[1]):
            as_many = runs.flops_per_step(sides[1]) >= (1 - AS_MANY) * cost
            yield comparison.verdict if as_many else None


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


def by_budget(primary: Comparisons, metric: str, runs: RunSet) -> tuple[BudgetCurve, ...]:
    """Return the differences by budget; nothing where no run was scored on the way."""
    if not any(run.curve(metric) for run in runs.attempted):
        return ()
    margins = {c.baseline: c.min_effect for c in primary}
    pairs = [(c.variant, c.baseline) for c in primary]
    spent = {name: _spent(name, metric, runs) for name in _names(pairs)}
    return budget.by_budget(spent, pairs, margins.__getitem__)


def _names(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    return dict.fromkeys(name for pair in pairs for name in pair)


def _spent(name: str, metric: str, runs: RunSet) -> Spent:
    finished = [run for run in runs.variants[name] if not run.lost]
    costs = [run.record.cost for run in finished]
    seconds = median_of(cost.train_sec for cost in costs)
    return Spent(
        curves=tuple(run.curve(metric) for run in finished),
        per_step={
            Unit.STEPS: 1.0,
            Unit.FLOPS: median_of(cost.flops_per_step for cost in costs),
            Unit.SECONDS: seconds and seconds / runs.steps,
        },
        shared_device=runs.shared_device(name),
    )
