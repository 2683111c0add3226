"""One search -> what can be said of it."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage

from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.confirmation import Candidate, Confirmation, confirmation
from sagan_bench.experiments.tuning.definition import TuningManifest, better
from sagan_bench.experiments.tuning.trials import (
    UNENDED,
    Outcome,
    Search,
    Trial,
    TrialRun,
    front,
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
        candidates: the best and the preset's own, trained again on set A; the chosen and the
            preset's own, on set B too.
        chosen: its number.
        searched: its value in the search, which is optimistic: it was chosen by it.
        reported: its mean on set B; null while that is to come, or if a run of it was lost.
        optimism: by how much ``searched`` looks better than ``reported``, in units of the metric.
        missing: runs on fresh seeds that are to come, as far as is known.
        flops_per_step: what a step of the winner computes.
        untuned: mean of the preset's own values on set B; null as ``reported``.
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
    untuned: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether all its trials did, and the best are trained again: only then it is compared."""
        ended = len(self.trials) >= self.budget.asked_for and not self.budget.unended
        return ended and not self.missing

    @property
    def is_over(self) -> bool:
        """Whether it says what it found: it has ended, or a timeout cut it."""
        return self.has_ended or (self.chosen is not None and not self.missing)

    @property
    def winner(self) -> Candidate | None:
        """The candidate that was chosen."""
        return next(
            (candidate for candidate in self.candidates if candidate.number == self.chosen), None
        )

    @property
    def presets(self) -> Candidate | None:
        """The preset's own values; none in what was searched before they were trained again."""
        return next((each for each in self.candidates if each.is_presets), None)


def of_search(
    search: Search, opened: BaseStorage, record_of: Callable[[TrialRun], Record | None]
) -> SearchFindings:
    """Return what can be said of a search, of its trials as they are stored."""
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
    reported, untuned = again.figure(chosen), again.figure(again.presets)
    sign = -1 if better(tuning.objectives[0]) == "higher" else 1
    searched = chosen.searched if chosen else None
    optimism = None
    if reported is not None and searched is not None:
        optimism = sign * (reported - searched)
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
        searched=searched,
        reported=reported,
        optimism=optimism,
        missing=len(again.missing),
        flops_per_step=chosen.flops_per_step if chosen else None,
        untuned=untuned,
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
