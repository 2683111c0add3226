"""The program that SLURM begins for each run: ``python -m ... N.jobs DEVICE THREADS``.

It listens for three things: a file that says why to stop; USR1, by which SLURM tells of the time
limit; and TERM, by which it takes the place away.  Each ends in a checkpoint.
"""

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from sagan_bench.execution import alone, messages
from sagan_bench.execution.attempt import placed
from sagan_bench.execution.engine import Ended
from sagan_bench.execution.engines._slurm import queue
from sagan_bench.execution.engines._slurm.folder import Folder, Spot
from sagan_bench.execution.losses import record_of
from sagan_bench.execution.slots import slots
from sagan_bench.runs.environment import ENGINE, JOB, variables
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Event as RunEvent

TIME_LIMIT = "the time limit of the SLURM job"
TAKEN = "preempted or cancelled in SLURM"
SECONDS_BETWEEN_EVENTS = 5.0
SECONDS_BETWEEN_LOOKS = 2.0


class Teller:
    """Appends events to a file: scores and ends at once, of the steps now and then.

    The file is closed after each, so that other machines see it; a failure to tell is no failure
    of what it tells of.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.pace = messages.Pace(SECONDS_BETWEEN_EVENTS)

    def __call__(self, what: RunEvent | Ended) -> None:
        if self.pace.lets(what):
            with suppress(OSError), self.file.open("a") as file:
                file.write(messages.of_event(what))


class Listener:
    """Says why a run is to stop: what its file of that says, or the signal that came."""

    def __init__(self, file: Path) -> None:
        self.file, self.reason, self.looked = file, "", -SECONDS_BETWEEN_LOOKS
        signal.signal(signal.SIGUSR1, self._hear(TIME_LIMIT))
        signal.signal(signal.SIGTERM, self._hear(TAKEN))

    def _hear(self, reason: str) -> Callable[[int, FrameType | None], None]:
        def hear(number: int, frame: FrameType | None) -> None:
            self.reason = self.reason or reason

        return hear

    def __call__(self) -> str | None:
        now = time.monotonic()
        if now - self.looked >= SECONDS_BETWEEN_LOOKS:
            self.looked = now
            with suppress(OSError):
                self.reason = self.file.read_text() or self.reason
        return self.reason or None


def gained(path: Path) -> bool:
    """Return whether the last attempt at a run took a step that was kept."""
    record = record_of(path)
    last = record.attempts[-1] if record and record.attempts else None
    return bool(last and last.to_step is not None and last.to_step > last.from_step)


def is_over_by(path: Path, place: str) -> bool:
    """Return whether a job has made a run to its end, and SLURM has put it back all the same."""
    record = record_of(path)
    last = record.attempts[-1] if record and record.attempts else None
    return bool(record and record.status.is_over and last and last.job == place)


def main(jobs: Path, device: str, threads: int) -> int:
    """Make the run that is this job's of an array, and return the exit code of the job."""
    number, task = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
    spot = Spot(int(jobs.stem), int(task))
    folder = Folder(jobs.parent.parent)
    stop, tell = Listener(folder.stop_file(spot)), Teller(folder.events(spot))
    job = messages.job_in(jobs.read_text().splitlines()[spot.task], folder.path)
    slot = slots(1, device, 1)[0]._replace(threads=threads, shared_by=1)
    if is_over_by(job.path, f"{number}_{task}"):
        return 0
    with variables({ENGINE: "slurm", JOB: f"{number}_{task}"}):
        ended = alone.make(placed(job, slot), tell, stop)
    tell(ended)
    if ended.status is Status.INTERRUPTED and ended.reason == TIME_LIMIT and gained(job.path):
        queue.put_back(os.environ["SLURM_JOB_ID"])
    return 0


if __name__ == "__main__":
    faulthandler.enable()  # to the log of the run
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
