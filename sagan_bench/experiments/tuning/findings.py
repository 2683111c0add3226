"""Searches -> what can be said of them: plain data for the terminal and the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from sagan_bench.analysis import costs, sequential, statistics
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.sequential import Course
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import Basis, Comparison, Metric, Pair, S, Standing
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.protocol import label
from sagan_bench.experiments.tuning import looking
from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.definition import TuningManifest, better, masked
from sagan_bench.experiments.tuning.searched import SearchFindings, of_search
from sagan_bench.experiments.tuning.trials import (
    TrialRun,
    searches,
)
from sagan_bench.runs.records import Record

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class FindingsOf(Generic[S, C]):
    """Everything that can be said of a tuning, in figures; in a report, with words in their place.

    ``comparisons`` are of variants, and of each with what it is worth untuned; their unit is the
    search.  ``standing`` is of all of them, ``courses`` are how each came to be at its looks, by
    ``design``; ``matters`` is the smallest difference that does, as it was declared.
    """

    name: str
    preset: str
    variants: tuple[str, ...]
    baseline: str
    objectives: tuple[str, ...]
    labels: tuple[str, ...]
    better: tuple[Literal["lower", "higher"], ...]
    min_effect: float
    space: str
    sampler: str
    pruner: str
    steps: int
    storage: str
    looks: int
    searches: tuple[SearchFindings, ...]
    standing: S | None
    comparisons: tuple[Comparison[S], ...]
    courses: tuple[C, ...] = ()
    design: Design | None = None
    matters: str = ""

    def first(self, variant: str) -> SearchFindings:
        """Return the search of a variant whose winner is exported: the first.

        To take the best of several would be to choose on set B.
        """
        return next(search for search in self.searches if search.variant == variant)


Findings = FindingsOf[Standing, Course]


def looked(looks: int) -> str:
    """Return how often a tuning went on when it could have chosen by set B, in a sentence."""
    times = "once" if looks == 1 else f"{looks} times"
    return f"The search went on {times} after figures on set B could be seen."


def of_tuning(folder: Path, url: str | None = None) -> Findings:
    """Return what can be said of the tuning in a folder.  Raises `UserError` as `collected`."""
    return collected(folder, url)[1]


def collected(
    folder: Path,
    url: str | None = None,
    record_of: Callable[[TrialRun], Record | None] = TrialRun.record,
) -> tuple[TuningManifest, Findings]:
    """Return what a tuning's folder keeps, and what can be said of it.

    Args:
        folder: of the tuning.
        url: of the storage, if it is not the journal in the folder.
        record_of: reads the record of a run on fresh seeds.

    Raises:
        UserError: there is none, or its storage cannot be read.
    """
    manifest = TuningManifest.of(folder)
    if manifest is None:
        raise UserError(f"no tuning is in {folder}; begin one with `tune`")
    if manifest.storage != masked(url):
        place, do = manifest.storage or "its journal", "give --storage accordingly"
        raise UserError(f"the trials of {folder} are in {place}; {do}")
    opened = kept.opened(folder, url)
    known = [of_search(search, opened, record_of) for search in searches(manifest, folder)]
    return manifest, findings(manifest, folder, known)


# --- Searches against each other ---------------------------------------------------------------


def findings(
    manifest: TuningManifest, folder: Path, searched: Sequence[SearchFindings]
) -> Findings:
    """Return what can be said of searches, and of what is compared by them."""
    tuning = manifest.tuning
    wanted = looking.wanted(manifest, searched)
    there = [s for s in searched if s.trials or (s.variant, s.index) in wanted]
    metric, shown = looking.metric(manifest), there if manifest.confirm else []
    seen = seen_in(shown, tuning.pairs, metric, tuning.design, manifest.looks)
    return Findings(
        name=folder.name,
        preset=tuning.preset,
        variants=tuning.variants,
        baseline=tuning.baseline,
        objectives=tuning.objectives,
        labels=tuple(label(name, manifest.extractor) for name in tuning.objectives),
        better=tuple(better(name) for name in tuning.objectives),
        min_effect=seen.comparisons[0].min_effect if seen.comparisons else 0.0,
        space=tuning.space.name,
        sampler=tuning.sampler,
        pruner=tuning.pruner,
        steps=tuning.steps,
        storage=manifest.storage or str(folder / kept.JOURNAL),
        looks=manifest.looks,
        searches=tuple(there),
        standing=seen.standing,
        comparisons=seen.comparisons,
        courses=seen.courses,
        design=tuning.design,
        matters=f"{tuning.measure.min_effect}",
    )


class Seen(NamedTuple):
    """What searches are compared by; no standing while a side has none that is over."""

    standing: Standing | None
    comparisons: tuple[Comparison[Standing], ...]
    courses: tuple[Course, ...]


def seen_in(
    searched: Sequence[SearchFindings],
    pairs: Sequence[Pair],
    metric: Metric,
    design: Design,
    looks: int,
) -> Seen:
    """Compare by what searches reported: a search is one observation.

    With fewer than 5 a side nothing is claimed: another search might have found other values.  Nor
    is anything where trials were added after a look; then there are no courses either.

    Args:
        searched: those that began.
        pairs: of sides.
        metric: what they reported.
        design: of the tuning.
        looks: how often more was asked for, when set B was seen, than searches.
    """
    known = looking.reported({s.variant for s in searched}, searched)
    sides = {name: known.get(name, {}) for pair in pairs for name in pair}
    courses = () if looks else looking.courses(sides, pairs, metric, design)
    least = min(map(len, sides.values()))
    if not least:
        return Seen(None, (), courses)
    compared = [
        sequential.at_look(sides, course.pair, metric, course, design, range(design.most))
        for course in courses
    ] or statistics.compare(sides, pairs, metric)
    if least >= CONFIRMATORY_N and courses:
        standings = [comparison.standing for comparison in compared]
        provisional = (of for of in standings if of.basis is Basis.PROVISIONAL)
        said = tuple(_per_step(comparison, searched) for comparison in compared)
        return Seen(next(provisional, standings[0]), said, courses)
    standing = Standing(Basis.FEW_SEARCHES, searches=least)
    if least >= CONFIRMATORY_N:
        standing = Standing(Basis.EXPLORATORY, looks=looks)
    plain = (replace(c, standing=standing, verdict=None, seeds_needed=None) for c in compared)
    return Seen(standing, tuple(plain), courses)


def _per_step(
    comparison: Comparison[Standing], searched: Sequence[SearchFindings]
) -> Comparison[Standing]:
    """Return a comparison that says where it holds per step alone: trials have equal steps."""

    def flops_per_step(side: str) -> int:
        values = (
            values
            for search in searched
            if search.has_ended
            for name, values in looking.sides(search)
            if name == side and values
        )
        return max((each.flops_per_step or 0 for each in values), default=0)

    costlier = costs.prefers_costlier(comparison, flops_per_step)
    return replace(comparison, shown_per_flop=False if costlier else None)
