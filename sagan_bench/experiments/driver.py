"""One loop for all that asks for many runs: a grid and a search only say which, and take notice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import Timeout

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import sweep_dead
from sagan_bench.core.locks import described, holding
from sagan_bench.core.stops import StopReason
from sagan_bench.execution.engine import Ended, Engine, Job, Placed
from sagan_bench.session.events import Event as RunEvent
from sagan_bench.session.events import Stop, Stopped

SECONDS_BETWEEN_LOOKS = 0.2

J = TypeVar("J", bound=Job)
What = RunEvent | Ended | Placed
Watch = Callable[[J, What | None], None]
"""Sees each run that begins (None) and every event of it."""


class Work(Protocol[J]):
    """What asks for runs."""

    def next(self) -> J | None:
        """Return the next run, which is then under way; None if there is none just now."""

    def take(self, run: J, what: What) -> StopReason | None:
        """Take notice of an event of a run under way; return why to cancel that run, or None."""


def drive(work: Work[J], engine: Engine, watch: Watch[J], stop: Stop, folder: Path) -> None:
    """Run what is asked for until nothing is, as many runs at a time as the engine has room for.

    Args:
        work: asked for a run whenever there is room.
        engine: where runs are made; left open.
        watch: sees everything.
        stop: asked often; a reason stops all runs after a checkpoint, or leaves them to an engine
            that detaches.
        folder: of the experiment.

    Raises:
        Stopped: ``stop`` asked for it.
    """
    under_way: dict[str, J] = {}
    stopping: str | None = None
    while True:
        while engine.free and not stopping and (run := work.next()):
            under_way[run.id] = run
            watch(run, None)
            engine.submit(run)
        if not under_way:
            break
        for job, what in engine.poll(SECONDS_BETWEEN_LOOKS):
            run = under_way.pop(job) if isinstance(what, Ended) else under_way[job]
            why = work.take(run, what)
            watch(run, what)
            if why:
                engine.cancel(job, why)
        if not stopping and (stopping := stop()):
            if engine.detaches:
                break
            for name in under_way:
                engine.cancel(name, stopping)
    if stopping:
        raise Stopped(stopping, folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of an experiment: one driver at a time.

    Raises:
        UserError: Another process has it: which, where and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(lock))
        except Timeout:
            raise UserError(
                f"another process is running the study in {folder}: {described(lock)}; wait until "
                "it ends, or choose another --name"
            ) from None
        sweep_dead(folder)
        yield
