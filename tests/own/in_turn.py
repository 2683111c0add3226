"""An engine: runs in this process, one at a time."""

from collections.abc import Sequence

from sagan_bench.core.registry import ENGINES
from sagan_bench.execution.attempt import attempt, placed
from sagan_bench.execution.engine import Event, Job
from sagan_bench.execution.slots import Slot
from sagan_bench.session.events import Stop


@ENGINES.register("in-turn")
class InTurn:
    """Makes a run when it is submitted; its events wait for `poll`."""

    detaches, free = False, 1

    def __init__(self, slots: Sequence[Slot], stop: Stop) -> None:
        self.slots, self.stop = slots, stop
        self.events: list[Event] = []

    def submit(self, job: Job) -> None:
        """Make the run."""
        ended = attempt(placed(job, self.slots[0]), lambda what: None, self.stop)
        self.events.append(Event(job.id, ended))

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what has ended since."""
        events, self.events = self.events, []
        return events

    def cancel(self, job: str, why: str) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """Nothing is held."""
