"""The best of a search, and what it began from, trained again on fresh seeds."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sagan_bench.analysis.question import Settings
from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.analysis.verdicts import Lost
from sagan_bench.experiments.tuning.definition import TOP
from sagan_bench.experiments.tuning.trials import (
    PRESETS_OWN,
    Outcome,
    Search,
    Trial,
    TrialRun,
    front,
    signs,
    value,
)
from sagan_bench.runs.records import Record, Status


@dataclass(frozen=True)
class Candidate:
    """Values that are trained again; figures are of the first objective.

    Attributes:
        number: of their trial.
        params: dotted key -> value.
        searched: what the search saw; null of the preset's own, where their trial did not end.
        on_a: training seed -> value of the runs that are over; null for one that was lost.
        on_b: likewise.
        failed: seeds of those that were lost to a failure; the others diverged.
        flops_per_step: what a step of theirs computes, if a run says so.
    """

    number: int
    params: Settings
    searched: float | None
    on_a: dict[int, float | None] = field(default_factory=dict)
    on_b: dict[int, float | None] = field(default_factory=dict)
    failed: tuple[int, ...] = ()
    flops_per_step: int | None = None

    @property
    def is_presets(self) -> bool:
        """Whether they are the preset's own."""
        return self.number == PRESETS_OWN

    @property
    def reported(self) -> float | Lost:
        """The mean on set B, or why there is none."""
        mean = mean_of_all(self.on_b.values())
        if mean is None:
            return Lost.FAILED if {*self.failed} & {*self.on_b} else Lost.DIVERGED
        return mean


@dataclass(frozen=True)
class Confirmation:
    """The best few of a search, and the preset's own values, on fresh seeds.

    The best of all these on set A is ``chosen``; it and the preset's own are reported on set B.
    Without a complete trial none is chosen, and what the search began from is all that it gives.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    missing: tuple[TrialRun, ...]
    """Runs that are still to be made, as far as is known."""

    def figure(self, candidate: Candidate | None) -> float | None:
        """Return the mean on set B; None until that is complete, and if a run of it was lost."""
        reported = None if candidate is None or self.missing else candidate.reported
        return None if isinstance(reported, Lost) else reported

    @property
    def presets(self) -> Candidate | None:
        """The preset's own values; none in what was searched before they were trained again."""
        return next((each for each in self.candidates if each.is_presets), None)


def confirmation(
    search: Search, trials: Iterable[Trial], record_of: Callable[[TrialRun], Record | None]
) -> Confirmation:
    """Return how far the best trials have been trained again.

    Args:
        search: of which.
        trials: its trials.
        record_of: reads the record of a run.
    """
    objectives, begun = search.manifest.tuning.objectives, [*trials]
    own = _presets_own(search, begun) if begun else None
    best = [_candidate(trial) for trial in distinct(front(begun, objectives), own)[:TOP]]
    if own and own not in best:
        best.append(own)
    missing = list[TrialRun]()

    def on_a(of: Candidate) -> Candidate:
        runs = _runs(search, of, search.seeds.chosen_on, record_of)
        missing.extend(runs.missing)
        return replace(
            of, on_a=runs.values, failed=tuple(runs.failed), flops_per_step=runs.flops_per_step
        )

    def on_b(of: Candidate) -> Candidate:
        runs = _runs(search, of, search.seeds.reported_on, record_of)
        missing.extend(runs.missing)
        return replace(of, on_b=runs.values, failed=(*of.failed, *runs.failed))

    candidates = [on_a(candidate) for candidate in best]
    if missing or not candidates:
        return Confirmation(tuple(candidates), None, tuple(missing))
    number = min(candidates, key=lambda candidate: rank(candidate, objectives)).number
    candidates = [
        on_b(each) if each.number == number or each.is_presets else each for each in candidates
    ]
    is_searched = any(trial.outcome is Outcome.COMPLETE for trial in begun)
    chosen = next(each for each in candidates if each.number == number)
    return Confirmation(tuple(candidates), chosen if is_searched else None, tuple(missing))


class _Runs(NamedTuple):
    """Runs of one's values at some seeds."""

    values: dict[int, float | None]
    failed: list[int]
    flops_per_step: int | None
    missing: list[TrialRun]


def _runs(
    search: Search,
    of: Candidate,
    seeds: Iterable[int],
    record_of: Callable[[TrialRun], Record | None],
) -> _Runs:
    runs = [search.run(of.number, of.params, seed) for seed in seeds]
    read = [(run, record_of(run)) for run in runs]
    over = {run.seed: record for run, record in read if record and record.status.is_over}
    objective = search.manifest.tuning.objectives[0]
    values = {
        seed: None if record.status.is_lost else value(record, objective)
        for seed, record in over.items()
    }
    return _Runs(
        values,
        [s for s, v in values.items() if v is None and over[s].status is not Status.DIVERGED],
        next(filter(None, (record.cost.flops_per_step for record in over.values())), None),
        [run for run in runs if run.seed not in over],
    )


def _candidate(trial: Trial) -> Candidate:
    return Candidate(trial.number, trial.params, trial.values[0] if trial.values else None)


def _presets_own(search: Search, trials: Iterable[Trial]) -> Candidate:
    """Return the preset's own values, as the first trial had them if it is there."""
    first = next((trial for trial in trials if trial.number == PRESETS_OWN), None)
    return _candidate(first) if first else Candidate(PRESETS_OWN, search.own_values(), None)


def distinct(trials: Iterable[Trial], own: Candidate | None) -> list[Trial]:
    """Return the trials but for those that repeat an earlier one's values, or the preset's own."""
    numbers = {_text(own.params): own.number} if own else {}
    return [t for t in trials if numbers.setdefault(_text(t.params), t.number) == t.number]


def _text(params: Settings) -> str:
    return json.dumps(params, sort_keys=True)


def rank(candidate: Candidate, objectives: Sequence[str]) -> tuple[bool, float, int]:
    """Order by the mean on set A; who lost a run there comes after those that did not."""
    mean = mean_of_all(candidate.on_a.values())
    reached = candidate.searched if mean is None else mean
    cost = math.inf if reached is None else reached * signs(objectives)[0]
    return mean is None, cost, candidate.number
