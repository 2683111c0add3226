"""One loop for all that asks for many runs: a grid and a search only say which, and are told."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import sweep_dead
from sagan_bench.core.locks import holding
from sagan_bench.execution.engine import Ended, Engine, Event, Job
from sagan_bench.session.events import Stop, Stopped

SECONDS_BETWEEN_LOOKS = 0.2


class Work(Protocol):
    """What asks for runs."""

    def next(self) -> Job | None:
        """Return the next run, which is then under way; None if there is none just now."""

    def take(self, event: Event) -> str | None:
        """Take notice of an event of a run under way; return why to cancel that run, or None."""


def drive(work: Work, engine: Engine, stop: Stop, folder: Path) -> None:
    """Run what is asked for until nothing is, as many runs at a time as the engine has room for.

    Args:
        work: asked for a run whenever there is room.
        engine: where runs are made; left open.
        stop: asked often; a reason stops all runs after a checkpoint.
        folder: of the experiment.

    Raises:
        Stopped: ``stop`` asked for it.
    """
    under_way: set[str] = set()
    stopping: str | None = None
    while True:
        while engine.free and not stopping and (job := work.next()):
            engine.submit(job)
            under_way.add(job.id)
        if not under_way:
            break
        for event in engine.poll(SECONDS_BETWEEN_LOOKS):
            if why := work.take(event):
                engine.cancel(event.job, why)
            if isinstance(event.what, Ended):
                under_way.remove(event.job)
        if not stopping and (stopping := stop()):
            for name in under_way:
                engine.cancel(name, stopping)
    if stopping:
        raise Stopped(stopping, folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of an experiment: one driver at a time.

    Raises:
        UserError: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(folder / ".lock"))
        except Timeout:
            raise UserError(
                f"another process is running the study in {folder}; wait until it ends, or choose "
                "another --name"
            ) from None
        sweep_dead(folder)
        yield
