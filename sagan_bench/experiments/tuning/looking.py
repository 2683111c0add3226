"""Searches of a tuning held against each other, at looks: they are to it what seeds are to a study.

All of it is a function of the searches by number and of the tuning's `Design`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sagan_bench.analysis import sequential
from sagan_bench.analysis.design import Cell, Design
from sagan_bench.analysis.sequential import Course
from sagan_bench.analysis.verdicts import Lost, Metric, Pair
from sagan_bench.evaluation.protocol import label
from sagan_bench.experiments.growing import wanted as wanted_cells
from sagan_bench.experiments.tuning.confirmation import Candidate
from sagan_bench.experiments.tuning.definition import TuningManifest, better, tuned, untuned
from sagan_bench.experiments.tuning.searched import SearchFindings

Reported = dict[str, dict[int, float | Lost]]
"""A variant, tuned or untuned -> search -> mean on set B, or why there is none."""


def metric(manifest: TuningManifest) -> Metric:
    """Return what searches are compared by, and the smallest difference that matters."""
    tuning = manifest.tuning
    name, extractor = tuning.objectives[0], manifest.extractor
    least, relative = tuning.measure.least
    return Metric(label(name, extractor), better(name), least, relative=relative)


def reported(variants: Iterable[str], searched: Iterable[SearchFindings]) -> Reported:
    """Return what each search that ended gives, and what the preset's own values do there."""
    known: Reported = {side: {} for name in variants for side in (name, untuned(name))}
    for search in sorted(searched, key=lambda search: search.index):
        for side, values in sides(search):
            if search.has_ended and values:
                known[side][search.index] = values.reported
    return known


def sides(search: SearchFindings) -> Iterator[tuple[str, Candidate | None]]:
    """Yield what a search is an observation of: what it gives, and the preset's own values.

    One without a complete trial gives what it began from.
    """
    yield search.variant, search.winner or search.presets
    yield untuned(search.variant), search.presets


def courses(
    known: Reported, pairs: Sequence[Pair], by: Metric, design: Design
) -> tuple[Course, ...]:
    """Return how far each pair has come; none where there are too few searches for a look."""
    if not design.looks:
        return ()
    seen = sequential.courses(known, pairs, by, design, range(design.most))
    return tuple(replace(course, missing=_searches_in(course.missing)) for course in seen)


def _searches_in(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return the searches of cells, a variant and a number each: two sides may come of one."""
    return tuple(dict.fromkeys((tuned(side), number) for side, number in cells))


def has_ended(manifest: TuningManifest, search: SearchFindings) -> bool:
    """Return whether all trials that are asked for now ended, and the best are trained again."""
    ended = len(search.trials) >= manifest.trials and not search.budget.unended
    return ended and not (manifest.confirm and search.missing)


def wanted(manifest: TuningManifest, searched: Sequence[SearchFindings]) -> set[Cell]:
    """Return the searches, a variant and a number each, that are to go on or were needed last.

    These are those up to the next look of each open pair, and those that began and have not ended;
    all, where there is no look, or none that could give a verdict.
    """
    tuning = manifest.tuning
    ended = [search for search in searched if has_ended(manifest, search)]
    known = reported(tuning.variants, ended)
    seen = courses(known, tuning.pairs, metric(manifest), tuning.design)
    if not seen or not manifest.confirm or manifest.looks:
        return {(name, number) for name in tuning.variants for number in range(tuning.searches)}
    begun = ((s.variant, s.index) for s in searched if s.trials and s not in ended)
    cells = wanted_cells(seen, tuning.design, range(tuning.searches))
    return {*begun, *_searches_in(cells)}
