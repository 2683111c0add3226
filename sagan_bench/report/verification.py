"""Whether what a report says follows from the values in it: every comparison, made again."""

import math
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sagan_bench.analysis import sequential, statistics
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Comparison, Lost, Metric, Outcomes, Standing, Verdict
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import first_trouble
from sagan_bench.experiments.tuning import findings as tuning
from sagan_bench.experiments.tuning.confirmation import rank
from sagan_bench.experiments.tuning.definition import pairs_of
from sagan_bench.experiments.tuning.searched import SearchFindings
from sagan_bench.report import answers
from sagan_bench.report.courses import of_pair
from sagan_bench.report.document import (
    AnyDocument,
    Document,
    LengthsDocument,
    TuningDocument,
    TuningFindings,
    read,
)
from sagan_bench.report.readings import Rule
from sagan_bench.report.text import sentence
from sagan_bench.runs.records import Status

CLOSE = 1e-6
"""Relative, of figures that are made again."""
FIGURES = (
    "effect", "interval", "interval_alone", "p", "p_bonferroni", "p_rank", "p_divergence",
    "n", "n_ok", "n_diverged", "n_failed", "n_baseline", "n_baseline_ok", "n_baseline_diverged",
    "n_baseline_failed", "hedges_g", "p_better", "p_better_interval", "pairs", "min_effect",
    "price",
)  # fmt: skip
NO_CLAIM = ("othing can be claimed", "Provisional: ", "Open: ", "too small to compare")
"""Of headlines that say no comparison."""


def verified(file: Path) -> tuple[int, list[str]]:
    """Return how many comparisons of a report were made again, and what does not follow.

    Raises:
        UserError: the file is no report, or older than what a verdict follows from.
    """
    document = read(file)
    try:
        return _verified(document, file)
    except (ValidationError, ValueError, LookupError, ZeroDivisionError) as error:
        raise UserError(
            f"{file} is of a rule that cannot be ({first_trouble(error)}); make it again from its "
            "runs"
        ) from error


def _verified(document: AnyDocument, file: Path) -> tuple[int, list[str]]:
    if isinstance(document, TuningDocument):
        design, comparisons = document.findings.design, document.findings.comparisons
        if design is not None:
            return len(comparisons), list(_of_tuning(document.findings, design))
    elif isinstance(document, LengthsDocument):
        return 0, []
    elif (rule := document.findings.rule) is not None:
        return len(document.findings.primary.comparisons), list(_of_runs(document, rule))
    raise UserError(f"{file} does not say by which rule it was made; make it again from its runs")


def _of_runs(document: Document, rule: Rule) -> Iterator[str]:
    outcomes, primary = _outcomes(document, rule), document.findings.primary
    yield from _missing_values(document, outcomes)
    if not _is_whole(document, rule):
        count, least = len(primary.comparisons), rule.pairs
        yield f"{count} comparisons, and it is of {least}, of which no run is to come"
    made = list(_again(document, rule, outcomes))
    for stored, (again, course) in zip(primary.comparisons, made, strict=True):
        verdict = None if course and course.is_open else again.verdict
        pair = f"{stored.variant} against {stored.baseline}"
        for key in FIGURES:
            yield from _apart(f"{pair}: {key}", getattr(stored, key), getattr(again, key))
        if stored.verdict is not None and stored.verdict != verdict:
            yield f"{pair}: verdict “{stored.verdict}”, and from its values “{verdict}”"
        if stored.verdict is None and _should_have(document, rule, stored, verdict):
            yield f"{pair}: no verdict, and from its values “{verdict}”"
    if rule.design:
        pairs = zip(primary.comparisons, made, strict=True)
        told = [of_pair(course, rule.design, stored) for stored, (_, course) in pairs if course]
        yield from _apart("courses", document.findings.courses, tuple(told))
    yield from _unfounded(document)


def _missing_values(document: Document, outcomes: Outcomes) -> Iterator[str]:
    """Yield where variants do not have the values of their runs, each seed once."""
    keys = [(run.variant, run.seed) for run in document.runs]
    for variant, seed in sorted({key for key in keys if keys.count(key) > 1}):
        yield f"{variant}, seed {seed}: its run is there twice"
    stored = {variant.name: variant.values for variant in document.findings.variants}
    for name in dict.fromkeys((*stored, *outcomes)):
        said, runs = stored.get(name, {}), outcomes.get(name, {})
        for seed in dict.fromkeys((*map(int, said), *runs)):
            value = runs.get(seed)
            known = None if isinstance(value, Lost) else value
            here = said.get(seed)
            if seed not in said:
                yield f"{name}, seed {seed}: it is left out, and its run has {_text(known)}"
            elif not _alike(here, known):
                yield f"{name}, seed {seed}: {_text(here)}, and its run has {_text(known)}"


def _is_whole(document: Document, rule: Rule) -> bool:
    """Return whether no comparison is left out that could have a verdict."""
    compared = document.findings.primary.comparisons
    if rule.design:
        return len(compared) == len(document.findings.courses) <= rule.pairs
    return len(compared) == rule.pairs or not any(c.verdict for c in compared)


def _unfounded(document: Document) -> Iterator[str]:
    """Yield sentences that do not say what their comparisons do, and headlines without any."""
    primary = document.findings.primary
    metric = Metric(primary.label, primary.better, 0.0)
    for comparison, said in zip(primary.comparisons, primary.sentences, strict=True):
        if not said.startswith(expected := sentence(comparison, metric)):
            yield f"the sentence “{said}”, and from its values “{expected}”"
    for said in document.findings.headline:
        if not any(part in said for part in (*primary.sentences, *NO_CLAIM)):
            yield f"the headline “{said}” is that of no comparison"


def _of_tuning(findings: TuningFindings, design: Design) -> Iterator[str]:
    """Yield what does not follow from the runs of each search on fresh seeds."""
    pairs = pairs_of(findings.variants, findings.baseline)
    if design.pairs != len(pairs) or not 0 < design.most <= max(design.horizon, design.most):
        yield f"its design is of {design.pairs} pairs, and it has {len(pairs)}"
        return
    ids = [search.id for search in findings.searches]
    yield from (f"{name} is there twice" for name in sorted({i for i in ids if ids.count(i) > 1}))
    for search in findings.searches:
        yield from _of_search(search, findings)
    name, better = findings.objectives[0], findings.better[0]
    matters = Measure(metric=name, min_effect=_least(findings.matters), better=better).least
    metric = Metric(findings.labels[0], better, matters[0], relative=matters[1])
    searched = findings.searches if findings.comparisons else ()
    seen = tuning.seen_in(searched, pairs, metric, design, findings.looks)
    for key, made in answers.said_of(findings, seen).items():
        yield from _apart(key, getattr(findings, key), made)


def _of_search(search: SearchFindings, findings: TuningFindings) -> Iterator[str]:
    """Yield what of a search does not follow from its runs: the choice on set A, means on set B."""
    chosen = search.chosen
    if chosen is not None:
        best = min(search.candidates, key=lambda values: rank(values, findings.objectives)).number
        if chosen != best:
            yield f"{search.id}: trial {chosen} is chosen, and on set A trial {best} is best"
    for values in search.candidates:
        if values.on_b and values.number != chosen and not values.is_presets:
            yield f"{search.id}: trial {values.number} has runs on set B, and is not chosen"
    for key, of in (("reported", search.winner), ("untuned", search.presets)):
        known = None if search.missing or of is None else of.reported
        yield from _apart(
            f"{search.id}: {key}", getattr(search, key), None if isinstance(known, Lost) else known
        )


def _apart(where: str, said: Any, made: Any) -> Iterator[str]:
    """Yield where what is said differs from what is made again, down to the single figure."""
    if is_dataclass(said) and is_dataclass(made):
        said, made = vars(said), vars(made)
    if isinstance(said, dict) and isinstance(made, dict):
        for key in dict.fromkeys((*said, *made)):
            yield from _apart(f"{where}.{key}", said.get(key), made.get(key))
    elif all(isinstance(part, tuple | list) and not _is_span(part) for part in (said, made)):
        if len(said) != len(made):
            yield f"{where}: {len(said)}, and from its values {len(made)}"
        for number, (here, there) in enumerate(zip(said, made, strict=False), 1):
            yield from _apart(f"{where} {number}", here, there)
    elif not _alike(said, made):
        yield f"{where} is {_text(said)}, and from its values {_text(made)}"


def _is_span(part: Any) -> bool:
    return bool(part) and all(isinstance(end, float | int | None) for end in part)


def _should_have(
    document: Document, rule: Rule, stored: Comparison[str], verdict: Verdict | None
) -> bool:
    """Return whether a verdict was left out without a reason."""
    has_blocks = document.placed.keys() & {stored.variant, stored.baseline}
    is_idle = has_blocks and "not engaged" in stored.standing  # which values do not say
    may = document.findings.declared and rule.comparable and not (rule.looks or is_idle)
    return may and verdict is not None


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
) -> Iterator[tuple[Comparison[Standing], sequential.Course | None]]:
    """Yield each comparison made again, and the course of its pair, of a study that grows."""
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
        yield from ((comparison, None) for comparison in made)
        return
    for course in sequential.courses(outcomes, pairs, metric, design, rule.order):
        comparison = sequential.at_look(outcomes, course.pair, metric, course, design, rule.order)
        yield comparison, course


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
