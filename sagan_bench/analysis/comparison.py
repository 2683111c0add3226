"""Outcomes of runs -> what can be claimed of them, in figures.

The endpoint is the last checkpoint's averaged weights; everything else is a secondary reading and
says so.  docs/statistics.md states the rule.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from sagan_bench.analysis import costs, paper, statistics
from sagan_bench.analysis.budget import BudgetCurve
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.limits import Doubt, doubts
from sagan_bench.analysis.question import Question
from sagan_bench.analysis.variants import Variant, idle, median_of, variant
from sagan_bench.analysis.verdicts import Basis, Comparison, Metric, Pair, Standing
from sagan_bench.config.diff import Difference
from sagan_bench.core.errors import NothingFinished, UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import leading, ordered
from sagan_bench.runs.run import Run

SECONDARY = 0.05
"""Smallest difference that matters in what does not decide: a share of the baseline's mean."""


class Kind(StrEnum):
    """What is read; all but `PRIMARY` is secondary."""

    PRIMARY = "primary"
    END = "end"
    RAW = "raw"
    EQUAL_FLOPS = "FLOPs"
    EQUAL_SECONDS = "seconds"
    BEST = "best"


class Absence(StrEnum):
    """Why there is nothing to read."""

    NO_CURVES = "no curves"
    NO_COSTS = "no costs"
    SHARED_DEVICE = "shared device"


@dataclass(frozen=True)
class Reading:
    """Comparisons by one measure, or why there are none.

    Attributes:
        kind: what is read.
        metric: key of the metric.
        how: what its values are.
        comparisons: in the order of the question's pairs.
        absent: why there are none.
    """

    kind: Kind
    metric: str
    how: Metric
    comparisons: tuple[Comparison[Standing], ...] = ()
    absent: Absence | None = None

    @property
    def min_effect(self) -> float:
        """The smallest difference that matters; the least where baselines differ in it."""
        return min((comparison.min_effect for comparison in self.comparisons), default=0.0)


@dataclass(frozen=True)
class Findings:
    """Everything that can be said of the runs of a question, in figures.

    Attributes:
        question: what was asked, of the pairs that have runs.
        runs: of which.
        variants: each baseline before what is compared with it.
        primary: the reading that decides.
        secondary: readings that are described.
        by_budget: the difference of each pair at every budget, from scores on the way.
        doubts: in which way runs look unlike what the rule was measured on.
        paper: the variants beside a published table.
        differences: variant -> (key, in its baseline, in the variant): all that changes results.
    """

    question: Question
    runs: RunSet
    variants: tuple[Variant, ...]
    primary: Reading
    secondary: tuple[Reading, ...]
    by_budget: tuple[BudgetCurve, ...]
    doubts: tuple[Doubt, ...]
    paper: tuple[paper.PaperLine, ...]
    differences: dict[str, list[Difference]]

    @property
    def missing(self) -> int:
        """Runs still to come."""
        return missing_runs(self.question, self.runs)

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol behind the figures, with all its sampling seeds; empty if none is known."""
        protocols = list(self.runs.protocols.values())
        if not protocols:
            return {}
        seeds = sorted(self.runs.protocols)
        return {**protocols[0].model_dump(mode="json"), "sampling_seed": seeds}


def findings(runs: RunSet, question: Question) -> Findings:
    """Return what can be said.

    Raises:
        UserError: nothing is finished, or the metric was not measured.
    """
    if not runs.attempted:
        raise NothingFinished(
            f"{question.name}: no run is finished yet, so there is nothing to compare; run it on"
        )
    metric = question.measure.metric
    if runs.metrics and metric not in runs.metrics:
        known = ordered(runs.metrics, theirs=runs.program is not None)
        raise UserError(f"these runs have no {metric}; they have {', '.join(known)}")
    pairs = tuple(pair for pair in question.pairs if all(name in runs.variants for name in pair))
    question = replace(question, pairs=pairs)
    order = [*(name for compared, base in pairs for name in (base, compared)), *runs.variants]
    variants = tuple(variant(name, runs, question.measure) for name in dict.fromkeys(order))
    primary = _at_the_end(Kind.PRIMARY, metric, runs, question)
    secondary = tuple(_secondary(runs, question))
    flops = next((r.comparisons for r in secondary if r.kind is Kind.EQUAL_FLOPS), ())
    outcomes = runs.outcomes(runs.at_the_end(metric))
    return Findings(
        question=question,
        runs=runs,
        variants=variants,
        primary=replace(primary, comparisons=costs.with_cost(primary.comparisons, flops, runs)),
        secondary=tuple(map(_described, secondary)),
        by_budget=costs.by_budget(primary.comparisons, metric, runs),
        doubts=tuple(dict.fromkeys(doubt for pair in pairs for doubt in doubts(outcomes, pair))),
        paper=tuple(paper.lines(question, variants, runs)),
        differences={
            compared: runs.differences(baseline, compared)
            for compared, baseline in pairs
            if runs.has_settings
        },
    )


def missing_runs(question: Question, runs: RunSet) -> int:
    """Return how many runs are still to come."""
    if question.planned is None:
        return len(runs.unfinished)
    return len(set(question.planned) - {(run.variant, run.seed) for run in runs.attempted})


def _secondary(runs: RunSet, question: Question) -> Iterator[Reading]:
    primary = question.measure.metric
    theirs = runs.program.better if runs.program else {}
    for metric in dict.fromkeys((*leading(), *theirs)):
        if metric != primary and metric in runs.metrics:
            yield _at_the_end(Kind.END, metric, runs, question)
    if runs.program is None:
        yield _at_the_end(Kind.RAW, primary, runs, question)
    if not _has_curves(runs, primary):
        if runs.program:
            return
        how = _how(question, runs, primary)
        for kind in (Kind.EQUAL_FLOPS, Kind.EQUAL_SECONDS, Kind.BEST):
            yield Reading(kind, primary, how, absent=Absence.NO_CURVES)
        return
    yield _at_equal(Kind.EQUAL_FLOPS, lambda run: run.record.cost.flops_per_step, runs, question)
    yield _at_equal(Kind.EQUAL_SECONDS, lambda run: run.record.cost.train_sec, runs, question)
    best = max if _how(question, runs, primary).better == "higher" else min
    values = runs.outcomes(lambda run: best(value for _, value in run.curve(primary)))
    yield _reading(Kind.BEST, primary, values, runs, question)


def _at_the_end(kind: Kind, metric: str, runs: RunSet, question: Question) -> Reading:
    values = runs.at_the_end(metric, "raw" if kind is Kind.RAW else "ema")
    return _reading(kind, metric, runs.outcomes(values), runs, question)


def _at_equal(
    kind: Kind, cost: Callable[[Run], float | None], runs: RunSet, question: Question
) -> Reading:
    """Compare each pair where the costlier of the two had spent what the cheaper spent in all."""
    metric, outcomes, pairs = question.measure.metric, {}, []
    how = _how(question, runs, metric)
    sides = dict.fromkeys(name for pair in question.pairs for name in pair)
    if kind is Kind.EQUAL_SECONDS and any(map(runs.shared_device, sides)):
        return Reading(kind, metric, how, absent=Absence.SHARED_DEVICE)
    for compared, baseline in question.pairs:
        spent = {
            name: median_of(cost(run) for run in runs.variants[name] if not run.lost) or 0
            for name in (compared, baseline)
        }
        least = min(spent.values())
        if not least:
            return Reading(kind, metric, how, absent=Absence.NO_COSTS)
        at_budget = f"{baseline} (budget of {compared})"
        for name, side in ((compared, compared), (at_budget, baseline)):
            step = runs.steps * least / spent[side]
            values = runs.outcomes(lambda run, step=step: _at(run.curve(metric), step))  # type: ignore[misc]
            outcomes[name] = values[side]
        pairs.append((compared, at_budget))
    return _reading(kind, metric, outcomes, runs, question, pairs)


def _at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """Return the value at a step, between the two scores around it."""
    steps, values = zip(*curve, strict=True)
    return float(np.interp(step, steps, values))


def _reading(
    kind: Kind,
    metric: str,
    outcomes: Mapping[str, Any],
    runs: RunSet,
    question: Question,
    compared: Sequence[Pair] = (),
) -> Reading:
    """Compare ``outcomes`` by the question's pairs, or by as many whose keys say more."""
    how = _how(question, runs, metric)
    by, missing = compared or question.pairs, missing_runs(question, runs)
    comparisons = statistics.compare(outcomes, by, how, looks=question.looks, missing=missing)
    withheld = (
        _withheld(comparison, pair, question, runs)
        for comparison, pair in zip(comparisons, question.pairs, strict=True)
    )
    return Reading(kind, metric, how, tuple(withheld))


def _described(reading: Reading) -> Reading:
    """Take the verdicts from a secondary reading: it has intervals and directions."""
    return replace(reading, comparisons=tuple(
        _without_verdict(comparison, Standing(Basis.SECONDARY))
        if comparison.standing.basis is Basis.CONFIRMATORY
        else comparison
        for comparison in reading.comparisons
    ))  # fmt: skip


def _without_verdict(comparison: Comparison[Standing], standing: Standing) -> Comparison[Standing]:
    plain = {"verdict": None, "seeds_needed": None, "seeds_range": None}
    return replace(comparison, standing=standing, **plain)  # type: ignore[arg-type]


def _how(question: Question, runs: RunSet, metric: str) -> Metric:
    primary = metric == question.measure.metric
    least, relative = question.measure.least if primary else (SECONDARY, True)
    return Metric(
        label=runs.label(metric),
        better=(primary and question.measure.better) or runs.better[metric],
        min_effect=least,
        relative=relative,
        blind_to=METRICS[metric].blind_to if metric in METRICS else "",
    )


def _withheld(
    comparison: Comparison[Standing], pair: Pair, question: Question, runs: RunSet
) -> Comparison[Standing]:
    """Take the verdict from a comparison of the variants of ``pair`` if it may have none."""
    if not question.declared:
        standing = Standing(Basis.POST_HOC)
    elif not question.comparable:
        standing = Standing(Basis.TOO_SMALL)
    elif did_nothing := idle(pair, runs):
        standing = Standing(Basis.IDLE, idle=did_nothing)
    else:
        return comparison
    return _without_verdict(comparison, standing)


def _has_curves(runs: RunSet, metric: str) -> bool:
    return all(run.lost or run.curve(metric) for run in runs.attempted)
