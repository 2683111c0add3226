"""What becomes of a run whose machine, or place there, was lost: it is run again, to a point."""

from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.execution.attempt import note_failure
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.runs.records import RECORD, Record, Status
from sagan_bench.runs.run_directory import read_now
from sagan_bench.session.failures import LOSSES

BAD_STARTS = 3
"""Runs, the first of all, that may fail before their first step; then it is not the runs."""


def record_of(path: Path) -> Record | None:
    """Return the record of a run as of now; None where there is none that can be read."""
    try:
        return read_now(path) if (path / RECORD).exists() else None
    except UserError:
        return None


def step_of(path: Path) -> int:
    """Return how far a run had come when its record was last written."""
    record = record_of(path)
    return record.step if record else 0


def end_in(path: Path, job: str) -> Ended | None:
    """Return how a run ended in a job of a cluster; None where its record does not say so."""
    record = record_of(path)
    last = record.attempts[-1] if record and record.attempts else None
    said = record and last and last.job == job and last.outcome
    return Ended(record.status, record.reason) if record and said else None


class Losses:
    """Counts how often each run was lost at a step; `LOSSES` times without a gain is a failure."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def take(self, job: Job, reason: str) -> Ended | None:
        """Record that a run was lost; return how it ended, or None if it is to be run again."""
        ended = note_failure(job, reason, lost=True)
        step = step_of(job.path)
        before, times = self._seen.get(job.id, (step, 0))
        times = times + 1 if step == before else 1
        self._seen[job.id] = step, times
        if ended.status is Status.INTERRUPTED and times >= LOSSES:
            # It left no record of its attempts, by which `note_failure` counts.
            return note_failure(job, f"{reason} (lost {times} times without a step gained)")
        return None if ended.status is Status.INTERRUPTED else ended


class Starts:
    """Watches whether the first runs come to a step at all."""

    def __init__(self) -> None:
        self._good, self._bad = False, 0

    def stepped(self) -> None:
        """Note that a run has taken a step."""
        self._good = True

    def are_bad_after(self, job: Job, ended: Ended) -> bool:
        """Return whether the first `BAD_STARTS` runs that ended failed before their first step."""
        if ended.status is not Status.FAILED or step_of(job.path):
            self._good = True
        self._bad += not self._good
        return self._bad == BAD_STARTS and not self._good
