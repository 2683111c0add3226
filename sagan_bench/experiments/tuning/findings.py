"""Searches -> what can be said of them: plain data for the terminal and the report."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, Literal

import optuna
from optuna.storages import BaseStorage

from sagan_bench.analysis import costs, statistics
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import Basis, Comparison, Lost, Metric, S, Standing
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.protocol import label
from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest, better, masked
from sagan_bench.experiments.tuning.trials import (
    UNENDED,
    Candidate,
    Confirmation,
    Outcome,
    Search,
    Trial,
    TrialRun,
    confirmation,
    front,
    searches,
    trials,
)
from sagan_bench.runs.records import Record
from sagan_bench.runs.run_directory import is_locked

_log = logging.getLogger(__name__)

IMPORTANCE_TRIALS = 30
"""Completed trials from which the importance of parameters is given."""


@dataclass(frozen=True)
class Axis:
    """A parameter as an axis of parallel coordinates; ``scale`` as in a space."""

    key: str
    scale: Literal["real", "log", "integer", "categorical"]
    low: float | None
    high: float | None
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Budget:
    """What a search took, of what it would have taken had no trial been cut short."""

    trials: dict[Outcome, int]
    asked_for: int
    """Trials that it was to have."""
    steps: int
    steps_unpruned: int
    seconds: float
    """Training and scoring of all trials that ended."""

    @property
    def unended(self) -> int:
        """Trials that go on, now or with the same command."""
        return sum(self.trials.get(outcome, 0) for outcome in UNENDED)


class Unweighed(StrEnum):
    """Why the importance of parameters is not known."""

    TOO_FEW = "too few"
    CONSTANT = "constant"


@dataclass(frozen=True)
class Importance:
    """Share of each parameter in what the objective varies by, or why that is not said."""

    evaluator: str
    shares: dict[str, float] | None
    absent: str | None
    """An `Unweighed`; in a report, that in words."""


@dataclass(frozen=True)
class SearchFindings:
    """One search.

    Attributes:
        id: its name.
        variant: what was searched.
        index: which of the variant's searches.
        axes: its parameters.
        trials: all, by number: the data of history and parallel coordinates.
        best_so_far: (trial number, best value of the first objective up to it).
        front: numbers of the trials that no other beats; with one objective, of the best alone.
        budget: spent and saved.
        importance: of parameters.
        candidates: the best, trained again on set A; the one chosen, on set B too.
        chosen: its number.
        searched: its value in the search, which is optimistic: it was chosen by it.
        reported: its mean on set B; null while that is to come, or if a run of it was lost.
        optimism: by how much ``searched`` looks better than ``reported``, in units of the metric.
        missing: runs on fresh seeds that are to come, as far as is known.
        flops_per_step: what a step of the winner computes.
    """

    id: str
    variant: str
    index: int
    axes: tuple[Axis, ...]
    trials: tuple[Trial, ...]
    best_so_far: tuple[tuple[int, float], ...]
    front: tuple[int, ...]
    budget: Budget
    importance: Importance
    candidates: tuple[Candidate, ...]
    chosen: int | None
    searched: float | None
    reported: float | None
    optimism: float | None
    missing: int
    flops_per_step: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it will say no more: all its trials ended, or a timeout cut it, and confirmed."""
        ended = len(self.trials) >= self.budget.asked_for and not self.budget.unended
        return not self.missing and (ended or self.chosen is not None)

    @property
    def winner(self) -> Candidate | None:
        """The candidate that was chosen."""
        return next(
            (candidate for candidate in self.candidates if candidate.number == self.chosen), None
        )


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
    known = [_of_search(search, opened, record_of) for search in searches(manifest, folder)]
    return manifest, findings(manifest, folder, known)


def _of_search(
    search: Search, opened: BaseStorage, record_of: Callable[[TrialRun], Record | None]
) -> SearchFindings:
    study = kept.read(opened, search.study_name)
    driven = is_locked(search.folder)
    known = kept.sound(
        lambda: trials(study, search.parameters, driven=driven) if study else [], search.study_name
    )
    stored = max((trial.number + 1 for trial in known), default=0)
    if stored < search.begun:
        storage = "its storage" if search.manifest.storage else kept.JOURNAL
        _log.warning(
            "%s: %d trials of %s have begun and %s knows %d: part of it is lost",
            search.folder, search.begun, search.id, storage, stored,
        )  # fmt: skip
    again = confirmation(search, known, record_of)
    return search_findings(search, known, again, importance(study, known))


def importance(study: optuna.Study | None, known: Sequence[Trial]) -> Importance:
    """Return the importance of the parameters for the objectives, if enough is known."""
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    name = "PED-ANOVA"
    complete = [trial for trial in known if trial.outcome == "complete"]
    if study is None or len(complete) < IMPORTANCE_TRIALS:
        return Importance(name, None, Unweighed.TOO_FEW)
    if len({trial.values for trial in complete}) == 1:
        return Importance(name, None, Unweighed.CONSTANT)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance(name, dict(shares), None)


def search_findings(
    search: Search, known: Sequence[Trial], again: Confirmation, weighed: Importance
) -> SearchFindings:
    """Return what can be said of one search, of its trials and of the best trained again."""
    tuning, chosen = search.manifest.tuning, again.chosen
    reported = again.reported
    sign = -1 if better(tuning.objectives[0]) == "higher" else 1
    optimism = sign * (reported - chosen.searched) if chosen and reported is not None else None
    best = front(known, tuning.objectives)
    return SearchFindings(
        id=search.id,
        variant=search.variant,
        index=search.index,
        axes=tuple(
            Axis(key, axis.kind, axis.low, axis.high, axis.choices)
            for key, axis in search.parameters.items()
        ),
        trials=tuple(known),
        best_so_far=_best_so_far(known, sign),
        front=tuple(trial.number for trial in (best if len(tuning.objectives) > 1 else best[:1])),
        budget=_budget(known, search.manifest),
        importance=weighed,
        candidates=again.candidates,
        chosen=chosen.number if chosen else None,
        searched=chosen.searched if chosen else None,
        reported=reported,
        optimism=optimism,
        missing=len(again.missing),
        flops_per_step=again.flops_per_step,
    )


def _best_so_far(known: Sequence[Trial], sign: int) -> tuple[tuple[int, float], ...]:
    """Return (number, best value up to it) of the complete trials."""
    complete = [(trial.number, trial.values[0]) for trial in known if trial.values]
    costs = accumulate((sign * value for _, value in complete), min)
    return tuple((number, sign * cost) for (number, _), cost in zip(complete, costs, strict=True))


def _budget(known: Sequence[Trial], manifest: TuningManifest) -> Budget:
    counted = Counter(trial.outcome for trial in known)
    ended = [trial for trial in known if trial.outcome in ("complete", "pruned", "diverged")]
    return Budget(
        trials={o: counted[o] for o in Outcome if counted[o] or o is not Outcome.INTERRUPTED},
        asked_for=manifest.trials,
        steps=sum(trial.steps for trial in ended),
        steps_unpruned=sum(
            manifest.tuning.steps if trial.outcome == "pruned" else trial.steps for trial in ended
        ),
        seconds=sum(trial.seconds for trial in ended),
    )


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
