"""Searches -> what can be said of them: plain data for the terminal and the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Generic, Literal

from sagan_bench.analysis import costs, statistics
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import Basis, Comparison, Lost, Metric, S, Standing
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.protocol import label
from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest, better, masked
from sagan_bench.experiments.tuning.searched import SearchFindings, of_search
from sagan_bench.experiments.tuning.trials import (
    Outcome,
    TrialRun,
    searches,
)
from sagan_bench.runs.records import Record


@dataclass(frozen=True)
class FindingsOf(Generic[S]):
    """Everything that can be said of a tuning, in figures.

    ``comparisons`` are of variants, whose unit is the search; ``standing`` is of all of them, a
    `Standing` or, in a report, that in words.
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

    def first(self, variant: str) -> SearchFindings:
        """Return the search of a variant whose winner is exported: the first.

        To take the best of several would be to choose on set B.
        """
        return next(search for search in self.searches if search.variant == variant)


Findings = FindingsOf[Standing]


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


# --- Sides of an equal tuning ------------------------------------------------------------------


def findings(
    manifest: TuningManifest, folder: Path, searched: Sequence[SearchFindings]
) -> Findings:
    """Return what can be said of searches, and of their variants against each other."""
    tuning = manifest.tuning
    config = tuning.config(tuning.variants[0], 0, manifest.auto)
    labels = tuple(label(name, config.evaluation.extractor) for name in tuning.objectives)
    metric = _metric(tuning, labels[0], searched)
    standing, compared = _compared(tuning, metric, searched, manifest.looks)
    return Findings(
        name=folder.name,
        preset=tuning.preset,
        variants=tuning.variants,
        baseline=tuning.baseline,
        objectives=tuning.objectives,
        labels=labels,
        better=tuple(better(name) for name in tuning.objectives),
        min_effect=metric.min_effect,
        space=tuning.space.name,
        sampler=tuning.sampler,
        pruner=tuning.pruner,
        steps=tuning.steps,
        storage=manifest.storage or str(folder / kept.JOURNAL),
        looks=manifest.looks,
        searches=tuple(searched),
        standing=standing,
        comparisons=compared,
    )


def _metric(tuning: Tuning, name: str, searched: Sequence[SearchFindings]) -> Metric:
    first = tuning.objectives[0]
    known = [
        search.reported
        for search in searched
        if search.variant == tuning.baseline and search.reported is not None
    ]
    least, relative = tuning.measure.least
    metric = Metric(name, better(first), least, relative=relative)
    return metric.against(fmean(known) if known else 0.0)


def _compared(
    tuning: Tuning, metric: Metric, searched: Sequence[SearchFindings], looks: int
) -> tuple[Standing | None, tuple[Comparison[Standing], ...]]:
    """Compare variants by what their searches reported: a search is one observation.

    With fewer than 5 a side nothing is claimed of a variant: another search might have found
    other values.  Nor is anything between searches of which one had more trials.
    """
    over = [search for search in searched if search.is_over]
    sides = {
        variant: {
            search.index: Lost.FAILED if search.reported is None else search.reported
            for search in over
            if search.variant == variant
        }
        for variant in tuning.variants
    }
    least = min(map(len, sides.values()))
    if len(sides) < 2 or not least:
        return None, ()
    missing = len(searched) - len(over)
    compared = statistics.compare(sides, tuning.baseline, metric, looks=looks, missing=missing)
    lengths = sorted({len(search.trials) - search.budget.trials[Outcome.FAILED] for search in over})
    if len(lengths) > 1:
        standing = Standing(Basis.UNEQUAL_SEARCHES, trials=(lengths[0], lengths[-1]))
    elif least < CONFIRMATORY_N:
        standing = Standing(Basis.FEW_SEARCHES, searches=least)
    else:
        return compared[0].standing, tuple(_per_step(c, over) for c in compared)
    plain = (replace(c, standing=standing, verdict=None, seeds_needed=None) for c in compared)
    return standing, tuple(plain)


def _per_step(
    comparison: Comparison[Standing], searched: Sequence[SearchFindings]
) -> Comparison[Standing]:
    """Return a comparison that says where it holds per step alone: trials have equal steps."""

    def flops_per_step(variant: str) -> int:
        known = (search.flops_per_step for search in searched if search.variant == variant)
        return max((flops for flops in known if flops), default=0)

    costlier = costs.prefers_costlier(comparison, flops_per_step)
    return replace(comparison, shown_per_flop=False if costlier else None)
