"""Outcomes of runs -> what can be claimed of them, in figures.

The endpoint is the last checkpoint's averaged weights; everything else is a secondary reading and
says so.  docs/statistics.md states the rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sagan_bench.analysis import costs, paper, statistics
from sagan_bench.analysis.budget import BudgetCurve, Unit
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.costs import Absence
from sagan_bench.analysis.limits import Doubt, doubts
from sagan_bench.analysis.question import Question
from sagan_bench.analysis.variants import Variant, idle, variant
from sagan_bench.analysis.verdicts import Basis, Comparison, Metric, Pair, Standing
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
    flops = [c for r in secondary if r.kind is Kind.EQUAL_FLOPS for c in r.comparisons]
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
    if absent := costs.on_the_way(primary, runs):
        if runs.program:
            return
        how = _how(question, runs, primary)
        for kind in (Kind.EQUAL_FLOPS, Kind.EQUAL_SECONDS, Kind.BEST):
            yield Reading(kind, primary, how, absent=absent)
        return
    if runs.program is None or any(map(runs.flops_per_step, runs.variants)):
        yield from _at_equal(Kind.EQUAL_FLOPS, runs, question)
    yield from _at_equal(Kind.EQUAL_SECONDS, runs, question)
    best = max if _how(question, runs, primary).better == "higher" else min
    values = runs.outcomes(lambda run: best(value for _, value in run.curve(primary)))
    yield _reading(Kind.BEST, primary, values, runs, question)


def _at_the_end(kind: Kind, metric: str, runs: RunSet, question: Question) -> Reading:
    values = runs.at_the_end(metric, "raw" if kind is Kind.RAW else "ema")
    return _reading(kind, metric, runs.outcomes(values), runs, question)


def _at_equal(kind: Kind, runs: RunSet, question: Question) -> Iterator[Reading]:
    """Yield the pairs compared where both had spent as much, and why others are not."""
    metric, cost = question.measure.metric, kind.value.lower()
    outcomes, absences = costs.at_equal(Unit(cost), question.pairs, metric, runs)
    there = [pair for pair in question.pairs if pair not in absences]
    if there:
        keys = [(costs.of_pair(pair[0], pair), costs.of_pair(pair[1], pair)) for pair in there]
        reading = _reading(kind, metric, outcomes, runs, question, there, keys)
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
    runs: RunSet,
    question: Question,
    pairs: Sequence[Pair] = (),
    keys: Sequence[Pair] = (),
) -> Reading:
    """Compare ``outcomes`` by the question's pairs, or by some, whose keys may say more."""
    how = _how(question, runs, metric)
    pairs, missing = pairs or question.pairs, missing_runs(question, runs)
    compared = statistics.compare(
        outcomes, keys or pairs, how, looks=question.looks, missing=missing
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
    elif did_nothing := idle(pair, runs):
        standing = Standing(Basis.IDLE, idle=did_nothing)
    else:
        return comparison
    return _without_verdict(comparison, standing)
