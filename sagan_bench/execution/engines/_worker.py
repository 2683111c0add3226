"""A worker process: how the driver starts, hears and ends it, and what it does."""

import faulthandler
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from sagan_bench.core.cpu import THREADS
from sagan_bench.core.stops import StopReason
from sagan_bench.execution import alone
from sagan_bench.execution.attempt import note_failure
from sagan_bench.execution.engine import Ended, Event, Job
from sagan_bench.execution.messages import Pace
from sagan_bench.execution.slots import Slot
from sagan_bench.runs.environment import ENGINE, variables
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Event as RunEvent

SECONDS_BETWEEN_EVENTS = 0.25
SECONDS_TO_END = 30.0
DIED = "the worker process died"
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Worker:
    """A process that serves runs, seen from the driver."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.job: Job | None = None
        self.failed = False
        """It leaves, because what failed may have broken its device."""
        self.stop_reason: str | None = None
        """Why its job is to stop."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs,))
        engine = os.environ.get(ENGINE) or "processes"  # or that for which this process makes runs
        own = {**dict.fromkeys(THREADS, str(slot.threads)), ENGINE: engine}
        with variables(own), _deaf():
            self.process.start()
        theirs.close()  # so that its end is seen here when the process dies

    def send(self, message: Job | str) -> None:
        """Send a job, or why to stop; if it died just now, `events` will say so."""
        with suppress(ConnectionError):
            self.connection.send(message)

    def events(self) -> Iterator[Event]:
        """Yield what has arrived; a dead process ends its run as failed, and says so."""
        while self.job and self.connection.poll():
            try:
                what = self.connection.recv()
            except (EOFError, ConnectionError):
                what = self._died(self.job)
            yield Event(self.job.id, what)
            if isinstance(what, Ended):
                self.job = self.stop_reason = None
                self.failed = what.status == Status.FAILED

    def _died(self, job: Job) -> Ended:
        """Record that the process died in a job, unless the job was over or was to stop.

        One that a signal ended was lost to the machine, which is no result.
        """
        self.process.join(SECONDS_TO_END)
        if self.stop_reason:
            return Ended(Status.INTERRUPTED, self.stop_reason)
        code = self.process.exitcode
        if code is None or code >= 0:
            return note_failure(job, f"{DIED}: exit code {code}")
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        died = f"{DIED}: {signal.Signals(-code).name}{hint}"
        return note_failure(job, died, lost=True)

    def end(self) -> None:
        """Close the connection, at which the worker stops politely; kill it if it does not."""
        self.connection.close()
        self.process.join(SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM, as does a process that is started within, from its first moment.

    A terminal sends Ctrl-C to the workers too, and they take seconds to import torch.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set this
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- In the worker ---------------------------------------------------------------------------


def _serve(driver: Connection) -> None:
    """Run the jobs that arrive, until the connection closes or one fails."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # to the log of the run
    os.setsid()  # where its driver is killed with its group, it has time for a checkpoint
    gc.freeze()  # as in `Inline`
    try:
        with suppress(EOFError, ConnectionError):  # the driver is gone
            _run_all(driver)
    finally:
        gc.unfreeze()  # else libraries tell of leaks at the end of the process


def _run_all(driver: Connection) -> None:
    while True:
        job = driver.recv()
        if isinstance(job, str):  # to stop, just after it ended
            continue
        ended = alone.make(job, _Sender(driver), lambda: _stop_reason(driver))
        driver.send(ended)
        if ended.status == Status.FAILED:
            return


def _stop_reason(driver: Connection) -> str | None:
    if not driver.poll():
        return None
    try:
        return str(driver.recv())
    except (EOFError, ConnectionError):
        return StopReason.ABANDONED


class _Sender:
    """Sends events to the driver: each score and divergence, and of the steps a few a second."""

    def __init__(self, driver: Connection) -> None:
        self.driver = driver
        self.pace = Pace(SECONDS_BETWEEN_EVENTS)

    def __call__(self, what: RunEvent) -> None:
        if self.pace.lets(what):
            with suppress(ConnectionError):  # the driver is gone: `_stop_reason` will notice
                self.driver.send(what)
