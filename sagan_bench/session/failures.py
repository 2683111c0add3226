"""How an attempt that failed or was lost is recorded."""

import logging
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.runs import records
from sagan_bench.runs.environment import environment
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run_directory import RunDirectory

_log = logging.getLogger(__name__)


def note_failure(
    blank: Record, path: Path, reason: str, trace: str = "", *, lost: bool = False
) -> Status:
    """Record that a run failed, if it could not do so itself; ``trace`` goes to ``failure.txt``.

    ``blank`` is its record before its first step (`unstarted`).

    One that was ``lost`` to a failure of the machine is interrupted, and failed once that has
    happened `LOSSES` times without a step gained.  A run that another process holds, or a folder
    that holds another run, is left alone; so is one that was over before what failed.  Returns the
    status that the run has.
    """
    try:
        with RunDirectory(path, digest=blank.config_digest, config=blank.config) as directory:
            status = end_attempt(directory, blank, reason, lost=lost)
            if trace and status == Status.FAILED:
                atomic_write(path / "failure.txt", trace.encode())
            return status
    except (UserError, OSError) as error:
        _log.warning("%s: that it failed could not be recorded: %s", path, error)
    return Status.INTERRUPTED if lost else Status.FAILED


LOSSES = 3
"""Attempts in a row that the machine may break off without a step gained."""


def end_attempt(directory: RunDirectory, blank: Record, reason: str, *, lost: bool) -> Status:
    """Record in a held directory how an attempt ended, unless the run was over before."""
    path = directory.path
    earlier = records.read(path) if directory.record_file.exists() else None
    if earlier and is_over(directory):
        _log.warning("%s: %s, after it was over", path, reason)
        return earlier.status
    record = earlier or blank
    if lost and (times := _losses(record)) < LOSSES:
        ended = record.model_copy(update={"status": Status.INTERRUPTED, "reason": reason})
    else:
        why = f"{reason} (lost {times} times without a step gained)" if lost else reason
        ended = _failed(record, why)
    directory.write(ended)
    return ended.status


def _losses(record: Record) -> int:
    """Return how many attempts in a row, the last included, were broken off at the same step."""
    last = record.attempts[-1] if record.attempts else None
    same = takewhile(
        lambda attempt: last and attempt.outcome is None and attempt.from_step == last.from_step,
        reversed(record.attempts),
    )
    return sum(1 for _ in same)


def is_over(directory: RunDirectory) -> bool:
    """Return whether the run has a result, which nothing that fails afterwards may replace."""
    return directory.record_file.exists() and records.read(directory.path).status.is_result


def _failed(record: Record, reason: str) -> Record:
    *before, last = record.attempts or (None,)
    if last and last.ended is None:
        last = last.model_copy(update={"ended": datetime.now(UTC), "outcome": Status.FAILED})
    attempts = (*before, last) if last else ()
    return record.model_copy(
        update={"status": Status.FAILED, "reason": reason, "attempts": attempts}
    )


def unstarted(config: RunConfig, digest: str, path: Path) -> Record:
    """Return the record of a run that never came to its first step."""
    return Record(
        run=path.resolve().name,
        name=config.name,
        variant=config.variant,
        seed=config.seed,
        status=Status.FAILED,
        step=0,
        steps=config.run.steps,
        config=config.model_dump(mode="json"),
        config_digest=digest,
        environment=environment(config.run.device),
    )
