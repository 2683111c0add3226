"""Whether what a report says follows from the values in it: every comparison, made again."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sagan_bench.analysis import sequential, statistics
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Comparison, Lost, Metric, Outcomes, Standing, Verdict
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning import findings as tuning
from sagan_bench.experiments.tuning.definition import pairs_of
from sagan_bench.report.document import Document, TuningDocument, TuningFindings, read
from sagan_bench.report.readings import Rule
from sagan_bench.runs.records import Status

CLOSE = 1e-6
"""Relative, of figures that are made again."""
FIGURES = ("effect", "interval", "interval_alone", "p", "p_bonferroni", "p_rank", "p_divergence")


def verified(file: Path) -> tuple[int, list[str]]:
    """Return how many comparisons of a report were made again, and what does not follow.

    Raises:
        UserError: the file is no report, or older than what a verdict follows from.
    """
    document = read(file)
    if isinstance(document, TuningDocument):
        design, comparisons = document.findings.design, document.findings.comparisons
        if design is not None:
            return len(comparisons), list(_of_tuning(document.findings, design))
    elif (rule := document.findings.rule) is not None:
        return len(document.findings.primary.comparisons), list(_of_runs(document, rule))
    raise UserError(f"{file} does not say by which rule it was made; make it again from its runs")


def _of_runs(document: Document, rule: Rule) -> Iterator[str]:
    outcomes = _outcomes(document, rule)
    for variant in document.findings.variants:
        runs = outcomes.get(variant.name, {})
        for seed, said in variant.values.items():
            value = runs.get(int(seed))
            known = None if isinstance(value, Lost) else value
            if not _alike(said, known):
                yield f"{variant.name}, seed {seed}: {_text(said)}, and its run has {_text(known)}"
    again = _again(document, rule, outcomes)
    for stored, (made, is_open) in zip(document.findings.primary.comparisons, again, strict=True):
        verdict = None if is_open else made.verdict
        is_due = _should_have(document, rule, stored, verdict)
        yield from _between(stored, replace(made, verdict=verdict), is_due=is_due)


def _between(stored: Comparison[str], made: Comparison[Standing], *, is_due: bool) -> Iterator[str]:
    """Yield where a comparison differs from that made again, or lacks the verdict that is due."""
    pair = f"{stored.variant} against {stored.baseline}"
    for key in FIGURES:
        here, there = getattr(stored, key), getattr(made, key)
        if not _alike(here, there):
            yield f"{pair}: {key} is {_text(here)}, and from its values {_text(there)}"
    if stored.verdict is not None and stored.verdict != made.verdict:
        yield f"{pair}: verdict “{stored.verdict}”, and from its values “{made.verdict}”"
    if stored.verdict is None and is_due:
        yield f"{pair}: no verdict, and from its values “{made.verdict}”"


def _of_tuning(findings: TuningFindings, design: Design) -> Iterator[str]:
    """Yield what does not follow from what each search reported, and that from its runs."""
    for search in findings.searches:
        for name, said, values in (
            ("reported", search.reported, search.winner),
            ("untuned", search.untuned, search.presets),
        ):
            known = None if search.missing or values is None else values.reported
            known = None if isinstance(known, Lost) else known
            if not _alike(said, known):
                yield f"{search.id}: {name} is {_text(said)}, and from its runs {_text(known)}"
    name, better = findings.objectives[0], findings.better[0]
    matters = Measure(metric=name, min_effect=_least(findings.matters), better=better).least
    metric = Metric(findings.labels[0], better, matters[0], relative=matters[1])
    pairs = pairs_of(findings.variants, findings.baseline)
    seen = tuning.seen_in(findings.searches, pairs, metric, design, findings.looks)
    if len(seen.comparisons) != len(findings.comparisons):
        count = len(seen.comparisons)
        yield f"{len(findings.comparisons)} comparisons, and from its values {count}"
    for stored, made in zip(findings.comparisons, seen.comparisons, strict=False):
        yield from _between(stored, made, is_due=made.verdict is not None)


def _should_have(
    document: Document, rule: Rule, stored: Comparison[str], verdict: Verdict | None
) -> bool:
    """Return whether a verdict was left out without a reason."""
    is_idle = "not engaged" in stored.standing  # of what blocks did, which values do not say
    return document.findings.declared and rule.comparable and verdict is not None and not is_idle


def _outcomes(document: Document, rule: Rule) -> Outcomes:
    """Return the values of runs that are over, or why there is none."""
    metric = document.findings.primary.metric
    collapse = Measure(
        metric=metric, min_effect=0, better=document.findings.primary.better, lost=rule.lost
    ).collapse
    outcomes: dict[str, dict[int, float | Lost]] = {}
    for run in sorted(document.runs, key=lambda run: run.seed):
        if not run.status.is_over:
            continue
        value: float | Lost | None = run.metrics.get(metric)
        limit = run.metrics.get(collapse.metric) if collapse else None
        if run.status is not Status.FINISHED:
            value = Lost.DIVERGED if run.status is Status.DIVERGED else Lost.FAILED
        elif collapse and limit is not None and collapse.has(limit):
            value = Lost.DIVERGED
        outcomes.setdefault(run.variant, {})[run.seed] = Lost.NO_FIGURE if value is None else value
    return outcomes


def _again(
    document: Document, rule: Rule, outcomes: Outcomes
) -> Iterator[tuple[Comparison[Standing], bool]]:
    """Yield each comparison made again, and whether its pair is still open."""
    primary, design = document.findings.primary, rule.design
    family = primary.comparisons
    metric = Metric(primary.label, primary.better, 0.0)
    pairs = [(comparison.variant, comparison.baseline) for comparison in family]
    matters = Measure(
        metric=primary.metric, min_effect=_least(document.findings.matters), better=primary.better
    ).least
    metric = replace(metric, min_effect=matters[0], relative=matters[1])
    if design is None:
        made = statistics.compare(
            outcomes, pairs, metric, looks=rule.looks, missing=rule.missing, paired=rule.paired
        )
        yield from ((comparison, False) for comparison in made)
        return
    for course in sequential.courses(outcomes, pairs, metric, design, rule.order):
        comparison = sequential.at_look(outcomes, course.pair, metric, course, design, rule.order)
        yield comparison, course.is_open


def _least(matters: str) -> float | str:
    return matters if matters.endswith("%") else float(matters)


def _alike(here: object, there: object) -> bool:
    if isinstance(here, tuple | list) and isinstance(there, tuple | list):
        return all(map(_alike, here, there))
    if isinstance(here, float | int) and isinstance(there, float | int):
        return math.isclose(here, there, rel_tol=CLOSE, abs_tol=1e-12)
    return here is there or here == there


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
