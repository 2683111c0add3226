"""Runs in worker processes that each serve many."""

from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from sagan_bench.core.registry import ENGINES
from sagan_bench.execution.attempt import placed
from sagan_bench.execution.engine import Event, Job
from sagan_bench.execution.engines._worker import Worker
from sagan_bench.execution.slots import Slot
from sagan_bench.session.events import Stop


@ENGINES.register("processes")
class Processes:
    """Makes each run in a worker process; a worker serves runs until one fails.

    Workers are started when needed. They ignore Ctrl-C and SIGTERM: they stop, after a
    checkpoint, when cancelled or when the connection to the driver closes; never by ``stop``.
    """

    detaches = False

    def __init__(self, slots: Sequence[Slot], stop: Stop = lambda: None) -> None:
        self.unused = list(slots)
        self.workers: list[Worker] = []

    @property
    def free(self) -> int:
        """Slots without a run."""
        return len(self.unused) + sum(worker.job is None for worker in self.workers)

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker, or to a new one."""
        self._retire(lambda worker: not worker.process.is_alive())
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            worker = Worker(self.unused.pop(0))
            self.workers.append(worker)
        worker.job = placed(job, worker.slot)
        worker.send(worker.job)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what the workers have sent, waiting at most so long for the first of it."""
        busy: dict[Any, Worker] = {
            worker.connection: worker for worker in self.workers if worker.job
        }
        ready = connection.wait(list(busy), timeout_sec)
        events = [event for each in ready for event in busy[each].events()]
        self._retire(lambda worker: worker.failed)
        return events

    def _retire(self, which: Callable[[Worker], bool]) -> None:
        """Give the slots of such workers without a run to workers yet to be started."""
        for worker in [worker for worker in self.workers if worker.job is None and which(worker)]:
            worker.end()
            self.workers.remove(worker)
            self.unused.append(worker.slot)

    def cancel(self, job: str, why: str) -> None:
        """Tell the worker of a job to stop."""
        for worker in self.workers:
            if worker.job and worker.job.id == job:
                worker.stop_reason = why
                worker.send(why)

    def close(self) -> None:
        """End all workers; those at a run write a checkpoint first."""
        for worker in self.workers:
            worker.end()
        self.workers.clear()
