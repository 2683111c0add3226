"""One search: its trials, the runs behind them, and which are the best."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_bench.analysis.question import Settings
from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.config.schema import RunConfig
from sagan_bench.execution.engine import Job
from sagan_bench.experiments.tuning.definition import Seeds, TuningManifest, better
from sagan_bench.experiments.tuning.space import Parameter
from sagan_bench.runs.records import RECORD, Record, Status
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import read_now

if TYPE_CHECKING:
    import optuna

Curve = tuple[tuple[int, float], ...]


class Outcome(StrEnum):
    """How a trial ended, in the words of the storage and of reports.

    As the `Status` of its run where it can be; a finished trial is complete, and a pruned one was
    interrupted for good.  To the storage an interrupted one is running.
    """

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = Status.DIVERGED.value
    FAILED = Status.FAILED.value
    RUNNING = Status.RUNNING.value
    INTERRUPTED = Status.INTERRUPTED.value


UNENDED = (Outcome.RUNNING, Outcome.INTERRUPTED)
"""Of trials that go on: now, or with the same command."""
STATES = {
    "COMPLETE": Outcome.COMPLETE,
    "PRUNED": Outcome.PRUNED,
    "FAIL": Outcome.FAILED,
    "RUNNING": Outcome.RUNNING,
}
PRESETS_OWN = 0
"""The trial that has the preset's own values."""
DIVERGED = "diverged"
"""The constraint that a diverged trial violates, by the share of its budget it did not reach."""


@dataclass(frozen=True)
class TrialRun(Job):
    """The run of a trial, or of its values at another seed."""

    config: RunConfig
    number: int
    of_trial: bool
    """Whether it is that of the trial itself."""

    def record(self) -> Record | None:
        """Return its record as of now; None if it never began."""
        return read_now(self.path) if (self.path / RECORD).exists() else None


@dataclass(frozen=True)
class Search:
    """One search: a variant, and which of its searches."""

    manifest: TuningManifest
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
        return self.manifest.tuning.seeds(self.index)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What is searched."""
        return self.manifest.tuning.parameters(self.variant, self.manifest.auto)

    @property
    def begun(self) -> int:
        """How many trials have begun, by the folders of their runs."""
        paths = (self.folder / self.id).glob("t*")
        numbered = (re.match(r"t(\d{4,9})-", path.name) for path in paths)
        return max((int(number[1]) + 1 for number in numbered if number), default=0)

    @property
    def is_reported(self) -> bool:
        """Whether a run on set B was begun, so that it may have been seen."""
        seeds = self.seeds.reported_on
        return any(any((self.folder / self.id).glob(f"t*-s{seed}-*")) for seed in seeds)

    @property
    def definition(self) -> dict[str, str]:
        """What the storage keeps with its study, so that no other goes on under this name."""
        kept = {key: json.dumps(value) for key, value in self.manifest.tuning.definition.items()}
        return kept | {"variant": self.variant, "data": self.manifest.data_fingerprint}

    def own_values(self) -> Settings:
        """Return the preset's own values, as the first trial has them."""
        config = self.manifest.tuning.config(self.variant, 0, self.manifest.auto)
        return self.manifest.tuning.space.own_values(self.parameters, config)

    def run(self, number: int, params: Mapping[str, Any], seed: int) -> TrialRun:
        """Return the run of a trial's values at a seed; its place depends on nothing else.

        Raises:
            UserError: values that cannot be together.
        """
        tuning, of_trial = self.manifest.tuning, seed == self.seeds.search
        config = tuning.config(
            self.variant,
            seed,
            self.manifest.auto,
            params=params,
            watched=of_trial and tuning.prunes,
        )
        digest = config.digest(self.manifest.data_fingerprint)
        name = f"t{number:04}-s{seed}"
        path = self.folder / self.id / f"{name}-{digest}"
        return TrialRun(f"{self.id}/{name}", config, path, digest, number, of_trial)


def searches(manifest: TuningManifest, folder: Path) -> list[Search]:
    """Return the searches of a tuning, the first of every variant first."""
    tuning = manifest.tuning
    return [
        Search(manifest, folder, variant, index)
        for index in range(tuning.searches)
        for variant in tuning.variants
    ]


def value(record: Record, objective: str) -> float | None:
    """Return what a finished run reached: the mean over sampling seeds, of averaged weights.

    They are those that it began with: what it is scored with later moves nothing.
    """
    if objective == "images_per_sec":
        return record.cost.images_per_sec
    run = Run(Path(), record)
    declared = run.sampling_seeds
    scores = (s for s in run.first_scored(objective) if s.sampling_seed in declared)
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


def trials(
    study: "optuna.Study", parameters: Mapping[str, Parameter], *, driven: bool = True
) -> list[Trial]:
    """Return the trials of a search that have begun, by number.

    Args:
        study: as it is stored.
        parameters: what is searched.
        driven: whether a process drives the search; without, what had not ended is interrupted.
    """
    begun = (trial for trial in study.get_trials(deepcopy=False) if trial.state.name in STATES)
    return [_trial(trial, parameters, driven) for trial in begun]


def _trial(
    frozen: "optuna.trial.FrozenTrial", parameters: Mapping[str, Parameter], driven: bool
) -> Trial:
    kept = frozen.user_attrs
    outcome = STATES[frozen.state.name]
    if outcome is Outcome.RUNNING and not driven:
        outcome = Outcome.INTERRUPTED
    if frozen.constraints.get(DIVERGED, 0) > 0 and outcome is Outcome.COMPLETE:
        outcome = Outcome.DIVERGED
    return Trial(
        number=frozen.number,
        outcome=outcome,
        params={key: parameters[key].read(v) for key, v in frozen.params.items()},
        values=tuple(frozen.values) if outcome is Outcome.COMPLETE else None,
        curve=tuple(sorted(frozen.intermediate_values.items())),
        steps=kept.get("steps", 0),
        seconds=kept.get("seconds", 0.0),
        reason=kept.get("reason"),
    )


def signs(objectives: Sequence[str]) -> list[int]:
    """Return 1 for each objective of which less is better, and -1 for the others."""
    return [1 if better(objective) == "lower" else -1 for objective in objectives]


def front(trials: Iterable[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the complete trials that no other beats in all objectives; the best first.

    Of one objective these are all complete trials by value.
    """
    by = signs(objectives)
    complete = [
        ([sign * value for sign, value in zip(by, trial.values, strict=True)], trial)
        for trial in trials
        if trial.values
    ]

    def beaten(costs: list[float]) -> bool:
        return any(
            other != costs and all(a <= b for a, b in zip(other, costs, strict=True))
            for other, _ in complete
        )

    kept = [each for each in complete if len(by) == 1 or not beaten(each[0])]
    return [trial for _, trial in sorted(kept, key=lambda each: (each[0][0], each[1].number))]
