"""What becomes of a run that SLURM's queue does not hold any more: over, or run again."""

import signal
from collections.abc import Callable
from typing import NamedTuple

from sagan_bench.execution.attempt import note_failure
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.engines._slurm.cell import TAKEN, TIME_LIMIT, gained
from sagan_bench.execution.engines._slurm.queue import End
from sagan_bench.execution.losses import Losses, record_of
from sagan_bench.runs import log
from sagan_bench.runs.log import LOG
from sagan_bench.runs.records import Status
from sagan_bench.runs.run_directory import abandoned

UNDER_WAY = frozenset({
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT",
})  # fmt: skip
"""States of SLURM in which a job is in the queue, or on its way back into it."""
CANCELLED = "cancelled in SLURM"
NO_LOG = 53
"""What SLURM has for a signal where a node cannot open the file of --output."""
NO_TIME = f"{TIME_LIMIT} came before a checkpoint; raise time, or lower run.checkpoint_every"


class Left(NamedTuple):
    """All that is known of it, beside its record."""

    job: Job
    said: Ended | None
    """Its last word."""
    why: str | None
    """Why it was told to stop."""
    end: End | None
    """What SLURM knows; None if nothing any more."""
    never_began: bool


def what_became(left: Left, losses: Losses, last_lines: Callable[[], str]) -> Ended | None:
    """Return how a run ended, which is then recorded; None if it is to be run again."""
    said, end = left.said, left.end
    state = end.state if end else ""
    if state != "NODE_FAIL":  # after which a node that is only out of reach may go on
        abandoned(left.job.path)
    record = record_of(left.job.path)
    if left.why:
        over = record and record.status.is_over
        return Ended(record.status, record.reason) if record and over else _stopped(left.why)
    if state == "CANCELLED" or (end is None and left.never_began):
        return _stopped(CANCELLED)
    if said and said.reason == TIME_LIMIT:
        return None if gained(left.job.path) else losses.take(left.job, NO_TIME)
    if state == "PREEMPTED" or (said and said.reason == TAKEN):
        return None
    if said:
        return said  # such as a disk that is full: the same command goes on
    if state == "COMPLETED" and record:  # its events could not be written
        return Ended(record.status, record.reason)
    if state == "FAILED" and end and not end.signal:
        lines = last_lines() or log.last_lines(left.job.path / LOG)
        last = lines.splitlines()[-1].strip() if lines else "its log is empty"
        return note_failure(left.job, f"{words(end)}; {last}", lines)
    return losses.take(left.job, words(end))


def _stopped(why: str) -> Ended:
    return Ended(Status.INTERRUPTED, why)


def words(end: End | None) -> str:
    """Return in words how a job ended."""
    if end is None:
        return "SLURM does not know its job any more"
    if end.state == "NODE_FAIL":
        return f"its node {end.node} failed"
    if end.state == "TIMEOUT":
        return NO_TIME
    if end.state == "OUT_OF_MEMORY":
        return "out of memory: SLURM ended its job as OUT_OF_MEMORY; raise mem"
    if end.signal == NO_LOG:
        return f"its node {end.node} cannot write its log: the folder of the runs is not seen there"
    if end.signal:
        name = signal.Signals(end.signal).name if end.signal in [*signal.Signals] else end.signal
        hint = " (out of memory?)" if end.signal == signal.SIGKILL else ""
        return f"its SLURM job ended as {end.state}: {name}{hint}"
    return f"its SLURM job ended as {end.state} with exit code {end.code}"
