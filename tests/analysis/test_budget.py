"""Differences against the budget: simultaneous intervals, crossings, and what is withheld."""

import numpy as np
import pytest

from sagan_bench.analysis.budget import POINTS, BudgetCurve, Spent, Unit, Withheld, by_budget

STEPS = np.arange(1, 11) * 100


def runs(level: float, slope: float, per_step: float = 1.0, n: int = 5, seed: int = 0) -> Spent:
    """Curves that rise by ``slope`` a thousand steps from ``level``, and spread by 0.01."""
    draws = np.random.default_rng(seed).normal(0, 0.01, n)
    curves = tuple(
        [(int(step), level + slope * step / 1000 + shift) for step in STEPS] for shift in draws
    )
    return Spent(curves, {Unit.STEPS: 1.0, Unit.FLOPS: per_step, Unit.SECONDS: per_step})


def curve(unit: Unit, ours: Spent, theirs: Spent, margin: float = 0.05) -> BudgetCurve:
    made = by_budget({"a": ours, "b": theirs}, [("a", "b")], lambda baseline: margin)
    return next(curve for curve in made if curve.unit == unit)


def test_a_difference_that_grows_crosses_the_margin_where_it_does() -> None:
    grows = curve(Unit.STEPS, runs(0.2, 0.4), runs(0.2, 0.2, seed=1))
    assert len(grows.points) == POINTS
    assert [grows.points[0].budget, grows.points[-1].budget] == [100, 1000]
    shift = grows.points[0].effect - 0.2 * 0.1
    assert grows.points[-1].effect == pytest.approx(0.2 + shift)
    assert grows.crosses == pytest.approx((0.05 - shift) / 0.2 * 1000)
    assert grows.crosses is not None
    assert grows.excludes_margin is not None
    assert grows.excludes_margin > grows.crosses


def test_what_wins_at_equal_steps_may_lose_at_equal_flops() -> None:
    ours, theirs = runs(0.1, 0.5, per_step=2.0), runs(0.1, 0.4, seed=1)
    assert curve(Unit.STEPS, ours, theirs).points[-1].effect > 0.05
    flops = curve(Unit.FLOPS, ours, theirs)
    assert flops.points[-1].budget == 1000  # what the cheaper side spent in all
    assert flops.points[0].budget == 200  # from where the costlier has a score
    assert flops.points[-1].effect < -0.05
    assert flops.crosses is not None


def test_a_difference_that_stays_within_the_margin_never_crosses_it() -> None:
    same = curve(Unit.STEPS, runs(0.2, 0.3), runs(0.2, 0.3, seed=1))
    assert same.crosses is None
    assert same.excludes_margin is None


def test_a_fall_counts_as_a_rise_does() -> None:
    falls = curve(Unit.STEPS, runs(0.5, -0.3), runs(0.5, 0.1, seed=1))
    assert falls.points[-1].effect < 0
    assert falls.crosses is not None
    assert falls.excludes_margin is not None


def test_intervals_hold_at_all_budgets_and_pairs_at_once() -> None:
    """Of 400 null studies with four pairs at most 5 % (and Monte-Carlo error) miss anywhere."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        spent = {
            name: Spent(
                tuple(
                    [(int(s), float(v)) for s, v in zip(STEPS, walk, strict=True)]
                    for walk in rng.normal(0, 1, (5, len(STEPS))).cumsum(axis=1)
                ),
                {Unit.STEPS: 1.0},
            )
            for name in "abcde"
        }
        curves = by_budget(spent, [(name, "e") for name in "abcd"], lambda baseline: 0.0)
        points = (p for curve in curves for p in curve.points)
        missed += any(not p.interval[0] <= 0 <= p.interval[1] for p in points if p.interval)
    assert missed / 400 < 0.07


@pytest.mark.parametrize(
    ("changed", "unit", "why"),
    [
        ({"curves": ()}, Unit.STEPS, Withheld.TOO_FEW),
        ({"curves": ([(100, 0.1)],) * 5}, Unit.STEPS, Withheld.NO_SCORES),
        ({"per_step": {Unit.STEPS: 1.0}}, Unit.FLOPS, Withheld.NO_COST),
        ({"shared_device": True}, Unit.SECONDS, Withheld.SHARED_DEVICE),
        ({"per_step": {Unit.FLOPS: 100.0}}, Unit.FLOPS, Withheld.NO_COMMON_BUDGET),
    ],
)
def test_what_cannot_be_compared_is_withheld(changed: dict, unit: Unit, why: Withheld) -> None:  # type: ignore[type-arg]
    good = runs(0.2, 0.3)
    other = Spent(**{**vars(good), **changed})
    made = curve(unit, other, good)
    assert made.withheld == why
    assert made.points == ()


def test_without_a_spread_there_is_no_interval() -> None:
    flat = Spent(([(100, 0.5), (1000, 0.5)],) * 5, {Unit.STEPS: 1.0})
    made = curve(Unit.STEPS, flat, flat)
    assert all(point.interval is None and point.effect == 0 for point in made.points)
    assert made.excludes_margin is None


def test_an_interval_beyond_the_margin_on_the_other_side_begins_anew() -> None:
    crossing = curve(Unit.STEPS, runs(-1.0, 4.0), runs(0.0, 0.0, seed=1))
    late = [point for point in crossing.points if point.interval and point.interval[0] > 0.05]
    early = [point for point in crossing.points if point.interval and point.interval[1] < -0.05]
    assert early
    assert crossing.excludes_margin == late[0].budget

    steep = curve(Unit.STEPS, runs(-100.0, 400.0), runs(0.0, 0.0, seed=1))
    signs = [point.effect > 0 for point in steep.points]
    first = steep.points[signs.index(True)]
    assert first.interval
    assert first.interval[0] > 0.05  # no point between the two sides
    assert steep.excludes_margin == first.budget
