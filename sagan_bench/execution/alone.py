"""A run in a process of its own: after whoever held it before, and with a log."""

import logging
import time
from pathlib import Path

from sagan_bench.core.locks import SECONDS_TO_LIVE
from sagan_bench.execution.attempt import attempt
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.runs.command import Command
from sagan_bench.runs.environment import attempt_here
from sagan_bench.runs.log import LOG, heading, printed_to
from sagan_bench.runs.records import Status
from sagan_bench.runs.run_directory import holder, is_locked
from sagan_bench.session.events import Stop, Watch

_log = logging.getLogger(__name__)
SECONDS_FOR_A_LOCK = SECONDS_TO_LIVE + 60
"""A worker whose driver was killed holds its run until its checkpoint is written; on a machine that
is gone, until it is taken for dead."""
SECONDS_IN_SILENCE = 5.0
"""That a run waits before it says so."""
HELD = "an earlier attempt still holds the run"


def make(job: Job, watch: Watch, stop: Stop) -> Ended:
    """Make a run to its end, as `attempt` does; what is printed goes to its log."""
    if ended := _outwaited(job.path, stop):
        return ended
    theirs = isinstance(job.config, Command)  # which begins its part of the log itself
    with printed_to(job.path / LOG) as add:
        if not theirs:
            add(heading(attempt_here(0, None)))
        ended = attempt(job, watch, stop)
        add(f"--- {ended.status}{f': {ended.reason}' if ended.reason else ''}")
    return ended


def _outwaited(path: Path, stop: Stop) -> Ended | None:
    """Wait until an attempt before, whose driver or machine is gone, has let go of a run.

    Returns:
        None, or how the run ends where it is not let go, or is asked to stop meanwhile.
    """
    began, has_said = time.monotonic(), False
    while is_locked(path):
        waited = time.monotonic() - began
        if why := stop():
            return Ended(Status.INTERRUPTED, why)
        if waited > SECONDS_FOR_A_LOCK:
            return Ended(Status.INTERRUPTED, f"{HELD}: {holder(path)}")
        if waited > SECONDS_IN_SILENCE and not has_said:
            has_said = True
            _log.warning("%s waits: it is held by %s", path.name, holder(path))
        time.sleep(0.1)
    return None
