"""Runs in this process, one at a time, while it is polled: for tests and debuggers."""

import gc
from collections.abc import Sequence

from sagan_bench.core.registry import ENGINES
from sagan_bench.execution.attempt import attempt, placed
from sagan_bench.execution.engine import Event, Job
from sagan_bench.execution.slots import Slot
from sagan_bench.runs.environment import ENGINE, variables
from sagan_bench.session.events import Event as RunEvent
from sagan_bench.session.events import Scored, Stop
from sagan_bench.training.loop import Diverged


@ENGINES.register("inline")
class Inline:
    """Makes runs in this process, in the first slot; one that runs is stopped by ``stop`` alone."""

    detaches = False

    def __init__(self, slots: Sequence[Slot], stop: Stop = lambda: None) -> None:
        gc.freeze()  # what is imported stays: collecting after each run need not look at it
        self.slot, self.stop = slots[0], stop
        self.job: Job | None = None

    @property
    def free(self) -> int:
        """1, or 0 while a job waits for `poll`."""
        return int(self.job is None)

    def submit(self, job: Job) -> None:
        """Keep the job for `poll`."""
        self.job = placed(job, self.slot)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Run the job and return its scores and its end."""
        if self.job is None:
            return []
        job, self.job, events = self.job, None, list[Event]()

        def watch(what: RunEvent) -> None:
            if isinstance(what, Diverged | Scored):
                events.append(Event(job.id, what))

        with variables({ENGINE: "inline"}):
            ended = attempt(job, watch, self.stop)
        return [*events, Event(job.id, ended)]

    def cancel(self, job: str, why: str) -> None:
        """Forget the job."""
        self.job = None

    def close(self) -> None:
        """Let everything be collected again."""
        gc.unfreeze()
