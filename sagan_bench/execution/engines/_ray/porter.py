"""What an actor of Ray is: room for one run at a time, on whatever machine, while it is asked."""

import importlib
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.stops import StopReason
from sagan_bench.execution import errands, messages
from sagan_bench.execution.engine import Ended, Event, Job, Placed
from sagan_bench.execution.engines.processes import Processes
from sagan_bench.execution.slots import slots
from sagan_bench.session.events import Progress
from sagan_bench.training.loop import Step

SECONDS_BETWEEN_LOOKS = 0.1

_log = logging.getLogger(__name__)


class News(NamedTuple):
    """What happened in a run since it was last asked for."""

    lines: list[str]
    offset: int
    """Behind them."""


class Porter:
    """Makes runs in a worker of this machine (`Processes`), and says what happens in them.

    It keeps all that was said of a run but its steps, so that another process may take it up.
    Where nobody asks for so long, it has its run write a checkpoint, and ends.

    Args:
        folder: ``.ray`` of the experiment.
        device: as it is asked for.
        threads: CPU threads of a run.
        shared_by: runs on the device.
        lease_sec: without a question, after which it ends.
    """

    def __init__(
        self, folder: Path, device: str, threads: int, shared_by: int, lease_sec: float
    ) -> None:
        (slot,) = slots(1, device, 1)
        self.engine = Processes([slot._replace(threads=threads, shared_by=shared_by)])
        self.folder, self.lease_sec = folder, lease_sec
        self.job: Job | None = None
        """Its run, until that has ended."""
        self.lines: list[str] = []
        """Said of its last run, but for steps."""
        self.step = ""
        """How far that is."""
        self.leaves = self.is_alone = False
        """It is to end, because it was asked to, or because nobody asks any more."""
        self.heard = time.monotonic()
        self.changed = threading.Condition()
        """Held by whoever looks at all this."""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    # --- What it is asked, each in a thread of its own ---

    def holds(self) -> tuple[str, str, str] | None:
        """Return id and digest of the run under way, and the machine; None if there is none."""
        with self.changed:
            self.heard = time.monotonic()
            if self.job is None or self.leaves or self.is_alone:
                return None
            return self.job.id, self.job.digest, socket.gethostname()

    def begin(self, line: str) -> str:
        """Begin a run, and return the name of the machine.

        Raises:
            UserError: its components are not to be had here.
        """
        job = messages.job_in(line, self.folder)
        with self.changed:
            self.heard = time.monotonic()
            if self.job and self.job.id == job.id:  # the answer to that was lost
                return socket.gethostname()
            self.engine.submit(job)
            self.job, self.lines, self.step = job, [], ""
        return socket.gethostname()

    def news(self, offset: int, seconds: float) -> News:
        """Return what was said from an offset on; of steps the last, after so many seconds."""
        with self.changed:
            self.heard = time.monotonic()
            self.changed.wait_for(lambda: len(self.lines) > offset or self.leaves, seconds)
            self.heard = time.monotonic()
            steps = [self.step] if self.step else []
            return News([*steps, *self.lines[offset:]], len(self.lines))

    def errand(self, text: str) -> str:
        """Do an errand on this machine (`execution.errands`)."""
        return errands.done(text, self.folder)

    def stop(self, why: str) -> None:
        """Have the run write a checkpoint and end; the actor stays."""
        with self.changed:
            if self.job:
                self.engine.cancel(self.job.id, why)

    def leave(self, why: str) -> None:
        """Have the run end likewise, and then the actor: so nothing is ever returned."""
        with self.changed:
            self.leaves = True
        self.stop(why)
        self.thread.join()
        end_actor()

    # --- In its own thread ---

    def _serve(self) -> None:
        """Watch the worker until it is time to leave."""
        try:
            with self.changed:
                while self.job or not (self.leaves or self.is_alone):
                    for event in self.engine.poll(0):
                        self._take(event)
                    self.changed.wait(SECONDS_BETWEEN_LOOKS)
                    if not self.is_alone and time.monotonic() - self.heard > self.lease_sec:
                        self.is_alone = True
                        self.stop(StopReason.UNHEARD)
            self.engine.close()
            if self.is_alone:
                end_process()
        except Exception:  # noqa: BLE001  # else the run would seem to go on
            _log.exception("the actor ends")
            end_process()

    def _take(self, event: Event) -> None:
        what = event.what
        if isinstance(what, Step | Progress):
            self.step = messages.of_event(what)
        elif not isinstance(what, Placed):  # as this one's runs are all the time
            if isinstance(what, Ended):
                self.job, self.step = None, ""
            self.lines.append(messages.of_event(what))
            self.changed.notify_all()


def end_actor() -> None:
    """End this actor as Ray has it, within a call of it."""
    importlib.import_module("ray.actor").exit_actor()


def end_process() -> None:
    """End this actor outside of a call: its worker has ended, and nobody listens."""
    os._exit(0)
