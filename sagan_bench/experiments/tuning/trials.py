"""One search: its trials, the runs behind them, which of them are trained again, which is best."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sagan_bench.analysis.question import Settings
from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.config.schema import RunConfig
from sagan_bench.experiments.tuning.definition import TOP, Memory, Seeds, better, definition
from sagan_bench.experiments.tuning.space import Parameter
from sagan_bench.runs.records import RECORD, Record, Status
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import read_now

if TYPE_CHECKING:
    import optuna

Outcome = Literal["complete", "pruned", "diverged", "failed", "running"]
Curve = tuple[tuple[int, float], ...]
STATES: dict[str, Outcome] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
}
DIVERGED = "diverged"
"""The constraint that a diverged trial violates, by the share of its budget it did not reach."""


class Cell(NamedTuple):
    """A training run: of a trial, or of its values at another seed."""

    id: str
    number: int
    seed: int
    config: RunConfig
    digest: str
    path: Path

    def record(self) -> Record | None:
        """Return its record as of now; None if it never began."""
        return read_now(self.path) if (self.path / RECORD).exists() else None


@dataclass(frozen=True)
class Search:
    """One search: a variant, and which of its searches."""

    memory: Memory
    folder: Path
    variant: str
    index: int

    @property
    def id(self) -> str:
        """Name of its folder."""
        return f"{self.variant}-{self.index}"

    @property
    def study_name(self) -> str:
        """Name of its study in the storage, which may hold those of other tunings."""
        return f"{self.folder.name}/{self.id}"

    @property
    def seeds(self) -> Seeds:
        """The training seeds of its runs."""
        return self.memory.tuning.seeds(self.index)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What is searched."""
        return self.memory.tuning.parameters(self.variant, self.memory.auto)

    @property
    def begun(self) -> int:
        """How many trials have begun, by the folders of their runs."""
        names = (re.match(r"t(\d{4,9})-", path.name) for path in (self.folder / self.id).glob("t*"))
        return max((int(found[1]) + 1 for found in names if found), default=0)

    @property
    def definition(self) -> dict[str, str]:
        """What the storage keeps with its study, so that no other goes on under this name."""
        mine = {"variant": self.variant, "data": self.memory.data_fingerprint}
        return definition(self.memory.tuning) | mine

    def own_values(self) -> Settings:
        """Return the preset's own values, as the first trial has them."""
        config = self.memory.tuning.config(self.variant, 0, self.memory.auto)
        return self.memory.tuning.space.own_values(self.parameters, config)

    def cell(self, number: int, params: Mapping[str, Any], seed: int) -> Cell:
        """Return the run of a trial's values at a seed; its place depends on nothing else.

        Raises:
            UserError: values that cannot be together.
        """
        tuning, of_trial = self.memory.tuning, seed == self.seeds.search
        config = tuning.config(
            self.variant, seed, self.memory.auto, params=params, watched=of_trial and tuning.prunes
        )
        digest = config.digest(self.memory.data_fingerprint)
        name = f"t{number:04}-s{seed}"
        path = self.folder / self.id / f"{name}-{digest}"
        return Cell(f"{self.id}/{name}", number, seed, config, digest, path)


def searches(memory: Memory, folder: Path) -> list[Search]:
    """Return the searches of a tuning, the first of every variant first."""
    tuning = memory.tuning
    return [
        Search(memory, folder, variant, index)
        for index in range(tuning.searches)
        for variant in tuning.variants
    ]


def value(record: Record, objective: str) -> float | None:
    """Return what a finished run reached: the mean over sampling seeds, of averaged weights."""
    if objective == "images_per_sec":
        return record.cost.images_per_sec
    scores = Run(Path(), record).first_scored(objective)
    return mean_of_all(score.metrics.get(objective) for score in scores)


@dataclass(frozen=True)
class Trial:
    """A trial as it is in the storage.

    Attributes:
        number: from 0; trial 0 has the preset's own values.
        outcome: how it ended, if it did.
        params: dotted key -> value.
        values: of each objective; None unless complete.
        curve: (step, first objective), the scores on the way.
        steps: generator updates taken.
        seconds: training and scoring.
        reason: why it diverged or failed.
    """

    number: int
    outcome: Outcome
    params: Settings
    values: tuple[float, ...] | None
    curve: Curve
    steps: int
    seconds: float
    reason: str | None


def trials(study: "optuna.Study", parameters: Mapping[str, Parameter]) -> list[Trial]:
    """Return the trials of a search that have begun, by number."""
    there = study.get_trials(deepcopy=False)
    return [_trial(one, parameters) for one in there if one.state.name in STATES]


def _trial(frozen: "optuna.trial.FrozenTrial", parameters: Mapping[str, Parameter]) -> Trial:
    kept = frozen.user_attrs
    outcome = STATES[frozen.state.name]
    if frozen.constraints.get(DIVERGED, 0) > 0 and outcome == "complete":
        outcome = "diverged"
    return Trial(
        number=frozen.number,
        outcome=outcome,
        params={key: parameters[key].read(v) for key, v in frozen.params.items()},
        values=tuple(frozen.values) if outcome == "complete" else None,
        curve=tuple(sorted(frozen.intermediate_values.items())),
        steps=kept.get("steps", 0),
        seconds=kept.get("seconds", 0.0),
        reason=kept.get("reason"),
    )


def signs(objectives: Sequence[str]) -> list[int]:
    """Return 1 for each objective of which less is better, and -1 for the others."""
    return [1 if better(one) == "lower" else -1 for one in objectives]


def front(found: Iterable[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the complete trials that no other beats in all objectives; the best first.

    Of one objective these are all complete trials by value.
    """
    complete = [one for one in found if one.values]
    by = signs(objectives)

    def costs(one: Trial) -> list[float]:
        return [sign * v for sign, v in zip(by, one.values or (), strict=True)]

    def beaten(one: Trial) -> bool:
        mine = costs(one)
        return any(
            all(a <= b for a, b in zip(costs(other), mine, strict=True)) and costs(other) != mine
            for other in complete
        )

    kept = complete if len(by) == 1 else [one for one in complete if not beaten(one)]
    return sorted(kept, key=lambda one: (costs(one)[0], one.number))


@dataclass(frozen=True)
class Candidate:
    """Values that are trained again; figures are of the first objective.

    ``on_a`` and ``on_b``: training seed -> value of the runs that are over; None for one that was
    lost.
    """

    number: int
    params: Settings
    searched: float
    """What the search saw."""
    on_a: dict[int, float | None] = field(default_factory=dict)
    on_b: dict[int, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Confirmation:
    """The best few of a search on fresh seeds: chosen on set A, reported on set B."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    missing: tuple[Cell, ...]
    """Runs that are still to be made, as far as is known."""

    @property
    def reported(self) -> float | None:
        """The mean on set B; None until it is complete, and if a run of it was lost."""
        if self.chosen is None or self.missing:
            return None
        return mean_of_all(self.chosen.on_b.values())


def confirmation(
    search: Search, found: Iterable[Trial], record_of: Callable[[Cell], Record | None]
) -> Confirmation:
    """Return how far the best trials have been trained again.

    Args:
        search: of which.
        found: its trials.
        record_of: reads the record of a run.
    """
    objectives = search.memory.tuning.objectives
    missing: list[Cell] = []

    def outcomes(number: int, params: Settings, seeds: Iterable[int]) -> dict[int, float | None]:
        over = dict[int, float | None]()
        for seed in seeds:
            cell = search.cell(number, params, seed)
            record = record_of(cell)
            if record is None or not record.status.is_over:
                missing.append(cell)
            else:
                finished = record.status == Status.FINISHED
                over[seed] = value(record, objectives[0]) if finished else None
        return over

    best = distinct(front(found, objectives))[:TOP]
    on_a = [
        Candidate(
            one.number,
            one.params,
            (one.values or (0.0,))[0],
            outcomes(one.number, one.params, search.seeds.chosen_on),
        )
        for one in best
    ]
    if missing or not on_a:
        return Confirmation(tuple(on_a), None, tuple(missing))
    winner = min(on_a, key=lambda one: _rank(one, objectives))
    on_b = outcomes(winner.number, winner.params, search.seeds.reported_on)
    chosen = Candidate(winner.number, winner.params, winner.searched, winner.on_a, on_b)
    after = tuple(chosen if one is winner else one for one in on_a)
    return Confirmation(after, chosen, tuple(missing))


def distinct(found: Iterable[Trial]) -> list[Trial]:
    """Return the trials but for those that repeat the values of one before."""
    seen = dict[str, Trial]()
    for one in found:
        seen.setdefault(json.dumps(one.params, sort_keys=True), one)
    return list(seen.values())


def _rank(one: Candidate, objectives: Sequence[str]) -> tuple[bool, float, int]:
    """Order by the mean on set A; one that lost a run there comes after those that did not."""
    mean = mean_of_all(one.on_a.values())
    cost = (mean if mean is not None else one.searched) * signs(objectives)[0]
    return mean is None, cost, one.number
