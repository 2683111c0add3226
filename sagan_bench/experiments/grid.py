"""The points of a study, a variant at a seed each: what is there of them, and what is to run."""

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_bench.config.diff import Difference, differences, results
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import garbage
from sagan_bench.core.cpu import cores
from sagan_bench.core.errors import UserError
from sagan_bench.execution.engine import Job
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.runs.command import Command
from sagan_bench.runs.keeping import BYTES_A_WEIGHT, keeps, state_bytes
from sagan_bench.runs.records import RECORD, Record, Status
from sagan_bench.runs.run_directory import read_now

if TYPE_CHECKING:
    from sagan_bench.analysis.sequential import Course

CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class GridPoint(Job):
    """A variant at a training seed: where its run is, and how far it has come."""

    record: Record | None
    trouble: str | None
    """Why its record cannot be read."""

    @property
    def status(self) -> Status | None:
        """How far it has come; None if it was never begun.  What failed can be tried again."""
        if self.record:
            return self.record.status
        return Status.FAILED if self.trouble else None

    @property
    def reason(self) -> str | None:
        """Why it has no result."""
        return self.record.reason if self.record else self.trouble

    @property
    def share_left(self) -> float:
        """The share of its generator updates that it still has to take."""
        done = self.record.step if self.record else 0
        if isinstance(self.config, Command):
            steps = self.record.steps if self.record else 1
        else:
            steps = self.config.run.steps
        return (steps - done) / steps


@dataclass(frozen=True)
class Plan:
    """The points of a study in the order they run: all variants at one seed, then the next seed.

    Attributes:
        folder: of the study.
        manifest: what the folder keeps, or will.
        points: of all variants and seeds.
        chosen: of these, the ids that are to be run now.
        retry: also run what failed before.
        by_seed: the seeds to be run were named, also of a study that grows.
    """

    folder: Path
    manifest: StudyManifest
    points: tuple[GridPoint, ...]
    chosen: frozenset[str]
    retry: bool = False
    by_seed: bool = False

    @cached_property
    def missing(self) -> list[GridPoint]:
        """What will be run; of a study that grows, for the next looks of its open pairs."""
        if self.manifest.study.design is None or self.by_seed:
            return self.possible
        needed = {cell for course in self.courses for cell in course.missing}
        lost = {cell for course in self.courses for cell in course.waiting}
        return [p for p in self.possible if (p.variant, p.seed) in needed | lost]

    @cached_property
    def possible(self) -> list[GridPoint]:
        """What may have to be run."""
        return [
            point for point in self.points if point.id in self.chosen and self._is_missing(point)
        ]

    @cached_property
    def courses(self) -> "tuple[Course, ...]":
        """How far each pair is, of a study that grows until it is conclusive."""
        from sagan_bench.analysis import comparison, gathering  # scipy comes with it
        from sagan_bench.experiments.findings import question

        study = self.manifest.study
        paths = [point.path for point in self.points if point.record]
        runs = gathering.gather(paths, planned=study.cells)
        return comparison.courses(runs, question(self.manifest))

    def _is_missing(self, point: GridPoint) -> bool:
        lost = point.status is Status.FAILED
        return self.retry if lost else point.status is None or not point.status.is_over

    @garbage.none_expected()
    def refreshed(self) -> "Plan":
        """Return the plan with its points as they now are on the disk."""
        points = (point_at(c.path, c.id, c.config, c.digest) for c in self.points)
        return replace(self, points=tuple(points))

    def differences(self) -> dict[str, list[Difference]]:
        """Return, for each compared variant, (key, in its baseline, in the variant)."""
        first = {point.variant: _settings(point.config) for point in reversed(self.points)}
        return {
            variant: differences(first[baseline], first[variant])
            for variant, baseline in self.manifest.study.pairs
        }

    def seconds_left(self, jobs: int, per_flop: float | None = None) -> float | None:
        """Estimate the wall time from finished runs, by FLOPs where a variant has none yet.

        Where nothing is finished, ``per_flop`` says what training takes, without scoring.
        """
        seconds = self._seconds(per_flop)
        return None if seconds is None else sum(map(seconds, self.missing)) / jobs

    def seconds_a_cell(self, per_flop: float | None = None) -> float | None:
        """Estimate what a cell takes alone, from its first step, in the mean of all variants."""
        seconds = self._seconds(per_flop, whole=True)
        first = {point.variant: point for point in reversed(self.points)}.values()
        return None if seconds is None else statistics.fmean(map(seconds, first))

    def _seconds(
        self, per_flop: float | None, *, whole: bool = False
    ) -> Callable[[GridPoint], float] | None:
        """Return what estimates the seconds of a run, or of what is left of it."""
        finished = [
            (point, point.record.cost)
            for point in self.points
            if point.record and point.status is Status.FINISHED
        ]
        if not (finished or per_flop):
            return None
        rates: dict[str, list[float]] = defaultdict(list)
        for point, cost in finished:
            rates[point.variant].append((cost.train_sec or 0) / self._flops(point))
        every = [rate for alike in rates.values() for rate in alike] or [per_flop or 0.0]
        usual, by_variant = (
            statistics.median(every),
            {k: statistics.median(v) for k, v in rates.items()},
        )
        scoring = statistics.median([cost.score_sec or 0 for _, cost in finished] or [0.0])

        def seconds(point: GridPoint) -> float:
            left = 1.0 if whole else point.share_left
            return by_variant.get(point.variant, usual) * self._flops(point) * left + scoring

        return seconds

    def _flops(self, point: GridPoint) -> int:
        """Return what a run computes; 1 where that is not known, so that all are alike."""
        facts = self.manifest.facts.get(point.variant)
        return facts.flops_per_step * point.ours.run.steps if facts else 1

    def disk_bytes(self) -> int:
        """Estimate what the missing runs will take: their weights, and checkpoints under way.

        Kept are G and its average, and the training state of those that keep it.
        """
        known = self.manifest.facts
        of = [(known[p.variant], p.ours.run) for p in self.missing if p.variant in known]
        states = [state_bytes(facts.parameters_g, facts.parameters_d) for facts, _ in of]
        kept = sum(2 * facts.parameters_g * BYTES_A_WEIGHT for facts, _ in of)
        kept += sum(
            size for size, (_, run) in zip(states, of, strict=True)
            if keeps(run.keep_training_state, size)
        )  # fmt: skip
        return kept + cores() * CHECKPOINTS_KEPT * max(states, default=0)


def point_at(path: Path, name: str, config: RunConfig | Command, digest: str) -> GridPoint:
    """Return a point with what is on the disk of it."""
    return GridPoint(name, config, path, digest, *_read(path))


def _settings(config: RunConfig | Command) -> dict[str, Any]:
    """Return all that changes what a run computes, but for the seed."""
    return config.program.settings if isinstance(config, Command) else results(config)


def _read(path: Path) -> tuple[Record | None, str | None]:
    """Return the record of a run, and why there is none although it was begun."""
    if not (path / RECORD).exists():
        return None, None
    try:
        return read_now(path), None
    except UserError as error:  # its own trouble: the others go on
        return None, str(error)
