"""Outcomes of runs -> what can be claimed of them, in figures.

The endpoint is the last checkpoint's averaged weights; everything else is a secondary reading and
says so.  docs/statistics.md states the rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from sagan_bench.analysis import costs, paper, probes, sequential, statistics
from sagan_bench.analysis.budget import BudgetCurve, Unit
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.costs import Absence
from sagan_bench.analysis.limits import Doubt, doubts
from sagan_bench.analysis.probes import Probes
from sagan_bench.analysis.question import Question
from sagan_bench.analysis.sequential import Course
from sagan_bench.analysis.spread import Spread, of_pairs, of_variants
from sagan_bench.analysis.variants import Variant, idle, variant
from sagan_bench.analysis.verdicts import (
    Basis,
    Comparison,
    Interval,
    Metric,
    Pair,
    Standing,
)
from sagan_bench.config.diff import Difference
from sagan_bench.core.errors import NothingFinished, UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import leading, ordered

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


@dataclass(frozen=True)
class Reading:
    """Comparisons by one measure, or why there are none.

    Attributes:
        kind: what is read.
        metric: key of the metric.
        how: what its values are.
        comparisons: in the order of the question's pairs.
        absent: why there are none.
        without: the pairs that are not there for that reason; empty for all.
    """

    kind: Kind
    metric: str
    how: Metric
    comparisons: tuple[Comparison[Standing], ...] = ()
    absent: Absence | None = None
    without: tuple[Pair, ...] = ()

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
        courses: of a study that grows until it is conclusive: each pair from look to look.
        spreads: how the runs of each variant spread by the primary metric, and of what.
        correlations: pair -> correlation of its runs at the same seed, and its interval.
        doubts: in which way runs look unlike what the rule was measured on.
        probes: what probes say together of finished weights; None where nothing was probed.
        paper: the variants beside a published table.
        differences: variant -> (key, in its baseline, in the variant): all that changes results.
    """

    question: Question
    runs: RunSet
    variants: tuple[Variant, ...]
    primary: Reading
    secondary: tuple[Reading, ...]
    by_budget: tuple[BudgetCurve, ...]
    courses: tuple[Course, ...]
    spreads: tuple[Spread, ...]
    correlations: dict[Pair, tuple[float, Interval]]
    doubts: tuple[Doubt, ...]
    paper: tuple[paper.PaperLine, ...]
    differences: dict[str, list[Difference]]
    probes: Probes[Standing] | None = None

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


class _Context(NamedTuple):
    """What is compared: runs, the question, and how far each of its pairs has come."""

    runs: RunSet
    question: Question
    courses: Mapping[Pair, Course]
    """Of a study that grows until it is conclusive."""

    @property
    def missing(self) -> int:
        """Runs still to come."""
        return missing_runs(self.question, self.runs)


def findings(runs: RunSet, question: Question) -> Findings:
    """Return what can be said.

    Raises:
        UserError: nothing is finished, or the metric was not measured.
    """
    if not runs.attempted:
        raise NothingFinished(
            f"{question.name}: no run is finished yet, so there is nothing to compare; run it on"
        )
    metric, collapse = question.measure.metric, question.measure.collapse
    for wanted in (metric, *([collapse.metric] if collapse else [])):
        if runs.metrics and wanted not in runs.metrics:
            known = ordered(runs.metrics, theirs=runs.program is not None)
            raise UserError(f"these runs have no {wanted}; they have {', '.join(known)}")
    pairs = tuple(pair for pair in question.pairs if all(name in runs.variants for name in pair))
    question = replace(question, pairs=pairs)
    runs = replace(runs, collapse=question.measure.collapse)
    order = [*(name for compared, base in pairs for name in (base, compared)), *runs.variants]
    variants = tuple(variant(name, runs, question.measure) for name in dict.fromkeys(order))
    outcomes = runs.outcomes(runs.at_the_end(metric))
    on_the_way = courses(runs, question)
    context = _Context(runs, question, {course.pair: course for course in on_the_way})
    primary = _at_the_end(Kind.PRIMARY, metric, context)
    secondary = tuple(_secondary(context))
    flops = [c for r in secondary if r.kind is Kind.EQUAL_FLOPS for c in r.comparisons]
    return Findings(
        question=question,
        runs=runs,
        variants=variants,
        primary=replace(primary, comparisons=costs.with_cost(primary.comparisons, flops, runs)),
        secondary=tuple(map(_described, secondary)),
        by_budget=_by_budget(primary, context),
        courses=on_the_way,
        spreads=of_variants(runs, metric),
        correlations=of_pairs(outcomes, pairs),
        doubts=tuple(dict.fromkeys(doubt for pair in pairs for doubt in doubts(outcomes, pair))),
        paper=tuple(paper.lines(question, variants, runs)),
        differences={
            compared: runs.differences(baseline, compared)
            for compared, baseline in pairs
            if runs.has_settings
        },
        probes=probes.of_runs(runs, question, _how(question, runs, metric), context.missing),
    )


def missing_runs(question: Question, runs: RunSet) -> int:
    """Return how many runs are still to come; of a study that grows, for its next looks."""
    if question.design:
        return len({cell for course in courses(runs, question) for cell in course.missing})
    if question.planned is None:
        return len(runs.unfinished)
    return len(set(question.planned) - {(run.variant, run.seed) for run in runs.attempted})


def courses(runs: RunSet, question: Question) -> tuple[Course, ...]:
    """Return how far each pair has come of a study that grows; nothing of others."""
    if question.design is None:
        return ()
    runs = replace(runs, collapse=question.measure.collapse)
    outcomes = runs.outcomes(runs.at_the_end(question.measure.metric))
    how = _how(question, runs, question.measure.metric)
    return sequential.courses(outcomes, question.pairs, how, question.design, question.order)


def _by_budget(primary: Reading, context: _Context) -> tuple[BudgetCurve, ...]:
    """Return the differences by budget; those of a study that was looked at are described."""
    curves = costs.by_budget(primary.comparisons, primary.metric, context.runs)
    if context.question.design is None:
        return curves
    return tuple(replace(curve, basis=Basis.SECONDARY.value) for curve in curves)


def _secondary(context: _Context) -> Iterator[Reading]:
    runs, question, _ = context
    primary = question.measure.metric
    theirs = runs.program.better if runs.program else {}
    for metric in dict.fromkeys((*leading(), *theirs)):
        if metric != primary and metric in runs.metrics:
            yield _at_the_end(Kind.END, metric, context)
    if runs.program is None and runs.was_scored(primary, "raw"):
        yield _at_the_end(Kind.RAW, primary, context)
    elif runs.program is None:
        yield Reading(Kind.RAW, primary, _how(question, runs, primary), absent=Absence.NOT_SCORED)
    if absent := costs.on_the_way(primary, runs):
        if runs.program:
            return
        how = _how(question, runs, primary)
        for kind in (Kind.EQUAL_FLOPS, Kind.EQUAL_SECONDS, Kind.BEST):
            yield Reading(kind, primary, how, absent=absent)
        return
    if runs.program is None or any(map(runs.flops_per_step, runs.variants)):
        yield from _at_equal(Kind.EQUAL_FLOPS, context)
    yield from _at_equal(Kind.EQUAL_SECONDS, context)
    best = max if _how(question, runs, primary).better == "higher" else min
    values = runs.outcomes(lambda run: best(value for _, value in run.curve(primary)))
    yield _reading(Kind.BEST, primary, values, context)


def _at_the_end(kind: Kind, metric: str, context: _Context) -> Reading:
    values = context.runs.at_the_end(metric, "raw" if kind is Kind.RAW else "ema")
    return _reading(kind, metric, context.runs.outcomes(values), context)


def _at_equal(kind: Kind, context: _Context) -> Iterator[Reading]:
    """Yield the pairs compared where both had spent as much, and why others are not."""
    runs, question, _ = context
    metric, cost = question.measure.metric, kind.value.lower()
    outcomes, absences = costs.at_equal(Unit(cost), question.pairs, metric, runs)
    there = [pair for pair in question.pairs if pair not in absences]
    if there:
        keys = [(costs.of_pair(pair[0], pair), costs.of_pair(pair[1], pair)) for pair in there]
        reading = _reading(kind, metric, outcomes, context, there, keys)
        named = (
            replace(c, variant=compared, baseline=f"{baseline} (budget of {compared})")
            for c, (compared, baseline) in zip(reading.comparisons, there, strict=True)
        )
        yield replace(reading, comparisons=tuple(named))
    for absence in dict.fromkeys(absences.values()):
        how = _how(question, runs, metric)
        without = tuple(pair for pair in question.pairs if absences.get(pair) is absence)
        some = without if len(without) < len(question.pairs) else ()
        yield Reading(kind, metric, how, absent=absence, without=some)


def _reading(
    kind: Kind,
    metric: str,
    outcomes: Mapping[str, Any],
    context: _Context,
    pairs: Sequence[Pair] = (),
    keys: Sequence[Pair] = (),
) -> Reading:
    """Compare ``outcomes`` by the question's pairs, or by some, whose keys may say more."""
    runs, question, courses = context
    how, pairs = _how(question, runs, metric), pairs or question.pairs
    keys = keys or pairs
    if question.design is None:
        compared = statistics.compare(
            outcomes, keys, how, looks=question.looks, missing=context.missing,
            paired=question.measure.paired,
        )  # fmt: skip
    else:
        compared = tuple(
            sequential.at_look(outcomes, key, how, courses[pair], question.design, question.order)
            for key, pair in zip(keys, pairs, strict=True)
        )
    withheld = (
        _withheld(comparison, pair, question, runs)
        for comparison, pair in zip(compared, pairs, strict=True)
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
    elif question.design and question.looks:  # it began around runs that could be seen
        standing = Standing(Basis.EXPLORATORY, looks=question.looks)
    elif did_nothing := idle(pair, runs):
        standing = Standing(Basis.IDLE, idle=did_nothing)
    else:
        return comparison
    return _without_verdict(comparison, standing)
