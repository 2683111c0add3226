"""Whether figures depend on a map: the rule of docs/probe.md, on arrays of many studies at once."""

from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from sagan_bench.analysis.intervals import by_pairs
from sagan_bench.analysis.verdicts import Floats, Metric


class State(StrEnum):
    """What the finished weights of a variant's runs do with their map."""

    DEPENDS = "depends on the map"
    AGAINST = "worse with its map"
    """The figure is better, by more than matters, once the map is replaced."""
    DOES_NOT = "does not depend on the map"
    CANNOT_TELL = "cannot tell"
    NORMALISATION = "depends on normalisation"
    """With statistics recomputed and frozen, the map seems to matter unequally."""


class Figures(NamedTuple):
    """The metric of each run, arrays (..., n): untouched, under the primary probe, its sham."""

    untouched: Floats
    applied: Floats
    sham: Floats
    frozen: Floats
    """`applied` with the statistics of the untouched network."""
    sham_frozen: Floats
    changed: Floats
    """Share of the pixels that `applied` changes."""


class Judged(NamedTuple):
    """Of each study, arrays (...): the mean excess over the sham, its interval, and the state."""

    excess: Any
    low: Any
    high: Any
    margin: Any
    state: Any


def judged(
    figures: Figures, metric: Metric, level: float, *, whole: bool = True, is_share: bool = False
) -> Judged:
    """Apply the rule; margins given as a share are those of the untouched figure.

    Args:
        figures: of runs.
        metric: what they are.
        level: of the interval, Student's t of the runs' excesses.
        whole: no run lacks a figure; else nothing is equivalent.
        is_share: whether 0 is the worst figure, below which nothing can fall.
    """
    least = metric.min_effect
    untouched = figures.untouched.mean(axis=-1)
    margin = least * np.abs(untouched) if metric.relative else np.full_like(untouched, least)
    excess = by_pairs(figures.applied, figures.sham, level)
    unchanged = _unchanged(figures)
    low, high = (np.where(unchanged, 0.0, bound) for bound in (excess.low, excess.high))
    effect = by_pairs(figures.applied, figures.untouched, level)
    near = (-margin <= low) & (high <= margin)
    near &= unchanged | ((-margin <= effect.low) & (effect.high <= margin))
    if is_share and metric.better == "higher":
        near &= unchanged | (untouched > margin)
    worse = (low > margin) if metric.better == "lower" else (high < -margin)
    better = (low > margin) if metric.better == "higher" else (high < -margin)
    rules = {
        State.NORMALISATION: _disagree(figures, margin, level),
        State.DEPENDS: worse,
        State.AGAINST: better,
        State.DOES_NOT: near & (margin > 0) & whole,
    }
    names = [state.value for state in rules]
    state = np.select(list(rules.values()), names, State.CANNOT_TELL.value)
    return Judged(excess.effect, low, high, margin, state)


def _unchanged(figures: Figures) -> Any:
    """Return where the probe changes nothing at all, in no run: nothing is estimated there."""
    same = (figures.applied == figures.untouched) & (figures.sham == figures.untouched)
    return (same & (figures.changed == 0)).all(axis=-1)


def _disagree(figures: Figures, margin: Floats, level: float) -> Any:
    """Return where excesses by recomputed and frozen statistics are further apart than matters.

    Where every difference matters, it must be shown that they are.
    """
    recomputed, frozen = figures.applied - figures.sham, figures.frozen - figures.sham_frozen
    apart = by_pairs(recomputed, frozen, level)
    shown = (apart.low > 0) | (apart.high < 0)
    return (np.abs(apart.effect) > margin) & ((margin > 0) | shown)
