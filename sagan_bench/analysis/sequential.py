"""Studies that grow until they are conclusive: their looks, and where each pair stopped.

All of it is a function of the runs in seed order and of the `Design`, whatever order runs ended in
and however often the study was stopped.  docs/statistics.md states the rule and its error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from scipy import stats

from sagan_bench.analysis import statistics
from sagan_bench.analysis.design import Cell, Design
from sagan_bench.analysis.verdicts import (
    Basis,
    Comparison,
    Floats,
    Lost,
    Metric,
    Outcomes,
    Pair,
    Standing,
    Verdict,
)

HOPELESS = 0.1
"""Chance of a verdict at the horizon below which a pair stops."""


class Stop(StrEnum):
    """Why a pair gets no more seeds."""

    VERDICT = "verdict"
    FUTILE = "futile"
    """Going on to the horizon would hardly decide."""
    SPENT = "spent"
    """There is no look left."""


@dataclass(frozen=True)
class Look:
    """A pair after n seeds a group: at a level of ``price``, and with what is to be expected.

    Attributes:
        chance: of a verdict at the horizon, if what is seen now is all that is known; null there
            and beyond, and where there is no spread to judge it by.
    """

    n: int
    price: float
    comparison: Comparison[Standing]
    chance: float | None = None

    @property
    def is_conclusive(self) -> bool:
        """Whether it has a verdict at which a pair stops."""
        verdict = self.comparison.verdict
        return verdict not in (None, Verdict.INCONCLUSIVE, Verdict.DIFFERS)


@dataclass(frozen=True)
class Course:
    """A pair from look to look.

    Attributes:
        pair: the variant and its baseline.
        looks: all that runs allow; what is beyond the stop is shown, and decides nothing.
        stopped: the place in ``looks`` at which the pair stopped; null while it is open.
        why: it stopped.
        waiting: cells that failed or have no figure, so that the next look waits.
        missing: cells that the next look needs and that are not over; none once it has stopped.
    """

    pair: Pair
    looks: tuple[Look, ...]
    stopped: int | None = None
    why: Stop | None = None
    waiting: tuple[Cell, ...] = ()
    missing: tuple[Cell, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it gets more seeds."""
        return self.why is None

    @property
    def decisive(self) -> Look | None:
        """The look at which it stopped, else the last; none before the first."""
        last = self.looks[-1] if self.looks else None
        return last if self.stopped is None else self.looks[self.stopped]

    @property
    def contradiction(self) -> Look | None:
        """The first look beyond a claim whose whole interval lies on the other side of 0."""
        effect = self.decisive.comparison.effect if self.decisive else None
        if self.stopped is None or effect is None:
            return None
        sign = math.copysign(1, effect)
        for look in self.looks[self.stopped + 1 :]:
            if (interval := look.comparison.interval) and max(
                sign * bound for bound in interval
            ) < 0:
                return look
        return None


def courses(
    outcomes: Outcomes, pairs: Sequence[Pair], metric: Metric, design: Design, seeds: Sequence[int]
) -> tuple[Course, ...]:
    """Return the course of each pair.

    Args:
        outcomes: variant -> training seed -> value, or why there is none.
        pairs: a variant and its baseline each.
        metric: the primary one.
        design: of the study.
        seeds: in the order in which the study takes them, as many as the last look at least.

    Raises:
        UserError: a value is NaN or infinite.
    """
    return tuple(_course(outcomes, pair, metric, design, seeds) for pair in pairs)


def _course(
    outcomes: Outcomes, pair: Pair, metric: Metric, design: Design, seeds: Sequence[int]
) -> Course:
    taken: list[Look] = []
    stopped, why = None, None
    for n in design.looks:
        there = {name: outcomes.get(name, {}) for name in pair}
        first = {k: {s: runs[s] for s in seeds[:n] if s in runs} for k, runs in there.items()}
        unusable = [(k, seed) for k, runs in first.items() for seed, value in runs.items()
                    if value in (Lost.FAILED, Lost.NO_FIGURE)]  # fmt: skip
        missing = [(k, seed) for seed in seeds[:n] for k in reversed(pair) if seed not in first[k]]
        if unusable or missing:
            if stopped is None:
                return Course(pair, tuple(taken), None, None, tuple(unusable), tuple(missing))
            break
        look = _look(first, pair, metric, design, n)
        taken.append(look)
        if stopped is None and (why := _stop(look, design)):
            stopped = len(taken) - 1
    return Course(pair, tuple(taken), stopped, why)


def _look(first: Outcomes, pair: Pair, metric: Metric, design: Design, n: int) -> Look:
    price = design.price(n)
    (comparison,) = statistics.compare(first, [pair], metric, level=price, paired=design.paired)
    chance = None
    if n < design.horizon and comparison.interval and comparison.effect is not None:
        low, high = comparison.interval
        left = chance_at_the_horizon(
            comparison.effect, (high - low) / 2, comparison.min_effect, n, design
        )
        chance = float(left)
    return Look(n, price, comparison, chance)


def at_look(
    outcomes: Outcomes,
    pair: Pair,
    metric: Metric,
    course: Course,
    design: Design,
    seeds: Sequence[int],
) -> Comparison[Standing]:
    """Compare two variants by any measure as their pair stands: its seeds, its price.

    A pair that is still open, or for whose first look runs are missing, has no verdict.

    Args:
        outcomes: by that measure.
        pair: keys of it.
        metric: what it is.
        course: of the pair.
        design: of the study.
        seeds: in the order in which the study takes them.
    """
    look = course.decisive
    n = look.n if look else design.looks[0]
    first = {
        name: {s: outcomes[name][s] for s in seeds[:n] if s in outcomes[name]} for name in pair
    }
    (comparison,) = statistics.compare(
        first, [pair], metric, missing=course.is_open, level=design.price(n), paired=design.paired
    )
    comparison = replace(comparison, price=design.price(n))
    if comparison.standing.basis is not Basis.PROVISIONAL:
        return comparison
    return replace(comparison, standing=Standing(Basis.PROVISIONAL, missing=len(course.missing)))


def _stop(look: Look, design: Design) -> Stop | None:
    if look.is_conclusive:
        return Stop.VERDICT
    if design.futility and look.chance is not None and look.chance < HOPELESS:
        return Stop.FUTILE
    return Stop.SPENT if look.n == design.looks[-1] else None


def chance_at_the_horizon(effect: Any, half: Any, least: Any, n: int, design: Design) -> Floats:
    """Return the chance of a verdict at the horizon, predicted from a look at n seeds.

    The difference at the horizon N is taken as normal about that now, with variance se^2 (1 - n/N).
    It decides if it is beyond both the half width there and the smallest that matters, or so near
    to 0 that its interval is within that.  Being non-binding, such a stop costs no error.

    Args:
        effect: the difference now.
        half: half width of its interval, at the price of this look.
        least: smallest difference that matters.
        n: seeds a group.
        design: of the study.
    """
    horizon, freedom = design.horizon, _freedom(design)
    now = stats.t.isf(design.price(n) / 2, freedom * (n - 1))
    then = stats.t.isf(design.price(horizon) / 2, freedom * (horizon - 1))
    error = half / now
    there = then * error * np.sqrt(n / horizon)
    spread = np.maximum(error * np.sqrt(1 - n / horizon), np.finfo(float).tiny)

    def within(bound: Any) -> Any:
        inside = stats.norm.cdf((bound - effect) / spread) - stats.norm.cdf(
            (-bound - effect) / spread
        )
        return np.where(np.asarray(bound) > 0, inside, 0.0)

    return np.asarray(1 - within(np.maximum(there, least)) + within(least - there))


def _freedom(design: Design) -> int:
    return 1 if design.paired else 2
