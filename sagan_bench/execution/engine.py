"""Where cells run: in worker processes that each serve many, or in this process.

A cell is a whole run. Whatever becomes of it is an `Ended` event and a record; the others go on.
"""

import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core.errors import MachineError, UserError, machine_error
from sagan_bench.runs.records import Status
from sagan_bench.runs.run_directory import is_locked
from sagan_bench.session import experiment
from sagan_bench.session.events import Progress, Scored, Stop, Stopped, Watch
from sagan_bench.training.loop import Diverged, Step

SECONDS_BETWEEN_EVENTS = 0.25
SECONDS_FOR_A_LOCK = 60.0
"""A worker whose driver was killed holds its run until its checkpoint is written."""
SECONDS_TO_END = 30.0
STOPPING = (signal.SIGINT, signal.SIGTERM)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Slot(NamedTuple):
    """Room for one cell at a time."""

    device: str
    threads: int
    shared_by: int
    """Slots on the device: their times are not those of a device of one's own."""


class Job(NamedTuple):
    """A cell to run."""

    id: str
    config: RunConfig
    path: Path
    digest: str


class Ended(NamedTuple):
    """A cell is over, for now."""

    status: Status
    reason: str | None


class Event(NamedTuple):
    """What happened in the cell ``job``."""

    job: str
    what: Progress | Step | Diverged | Scored | Ended


class Engine(Protocol):
    """Runs cells, as many at a time as there are slots."""

    @property
    def free(self) -> int:
        """Slots without a cell."""

    def submit(self, job: Job) -> None:
        """Begin a cell; one slot must be free."""

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what happened, waiting so long for something to happen."""

    def cancel(self, job: str, why: str) -> None:
        """Ask a cell to stop as soon as nothing is lost; its `Ended` follows."""

    def close(self) -> None:
        """End all workers; a cell under way is asked to stop first."""


def slots(jobs: int | None, device: str, cells: int) -> list[Slot]:
    """Share cores and GPUs out among ``jobs`` cells at a time.

    By default one a GPU, or one a core: small networks gain more from a process than from a thread.

    Args:
        jobs: cells at a time, or None.
        device: ``auto`` is every GPU, or the CPU.
        cells: those of the whole study; more slots would stay empty.

    Raises:
        UserError: the device is not there.
    """
    chosen = system.device(device)
    if chosen.type == "cuda" and chosen.index is None and device == "auto":
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        devices = [str(chosen)]
    most = cpu.cores() if chosen.type == "cpu" else len(devices)
    jobs = max(1, min(jobs or most, cells))
    threads = max(1, cpu.cores() // jobs)
    placed = [devices[index % len(devices)] for index in range(jobs)]
    return [Slot(place, threads, placed.count(place)) for place in placed]


def attempt(job: Job, watch: Watch, stop: Stop) -> Ended:
    """Run a cell to its end, whatever that is; all but the interpreter's own ends are recorded."""
    try:
        record = experiment.run(job.config, out=job.path, watch=watch, stop=stop)
        return Ended(record.status, record.reason)
    except Stopped as stopped:
        return Ended(Status.INTERRUPTED, str(stopped))
    except (MachineError, OSError) as error:
        failure = machine_error(error) if isinstance(error, OSError) else error
        noted = experiment.note_failure(job.config, job.digest, job.path, str(failure), lost=True)
        return Ended(noted, str(failure))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this cell's result
        reason = f"{type(error).__name__}: {error}"
        trace = "" if isinstance(error, UserError) else traceback.format_exc()
        noted = experiment.note_failure(job.config, job.digest, job.path, reason, trace)
        return Ended(noted, reason)
    finally:
        if job.config.training.compile:
            torch.compiler.reset()  # the next cell's networks are others
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _placed(job: Job, slot: Slot) -> Job:
    """Return the job as it runs in a slot: device, threads, and how many share the device.

    A cell that was interrupted keeps the threads that it had: their number changes last bits.
    """
    given = {"run.device": slot.device, "run.cells_on_device": slot.shared_by}
    if experiment.threads_of(job.path) is None:
        given["run.threads"] = job.config.run.threads or slot.threads
    config = override(job.config, {key: ("engine", value) for key, value in given.items()})
    return job._replace(config=config)


class Inline:
    """Runs cells in this process, one at a time, while it is polled: for tests and debuggers."""

    def __init__(self, slot: Slot, stop: Stop = lambda: None) -> None:
        gc.freeze()  # what is imported stays: collecting after each cell need not look at it
        self.slot, self.stop = slot, stop
        self.job: Job | None = None

    @property
    def free(self) -> int:
        """1, or 0 while a job waits for `poll`."""
        return int(self.job is None)

    def submit(self, job: Job) -> None:
        """Keep the job for `poll`."""
        self.job = _placed(job, self.slot)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Run the job and return its scores and its end."""
        if self.job is None:
            return []
        job, self.job, events = self.job, None, list[Event]()

        def watch(what: Progress | Step | Diverged | Scored) -> None:
            if isinstance(what, Diverged | Scored):
                events.append(Event(job.id, what))

        ended = attempt(job, watch, self.stop)
        return [*events, Event(job.id, ended)]

    def cancel(self, job: str, why: str) -> None:
        """Forget the job: one that runs is stopped by ``stop`` alone."""
        self.job = None

    def close(self) -> None:
        """Let everything be collected again."""
        gc.unfreeze()


class _Worker:
    """A process that serves cells, seen from the driver."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.job: Job | None = None
        self.failed = False
        """It leaves, because what failed may have broken its device."""
        self.asked: str | None = None
        """Why its job was asked to stop."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs,))
        with _environment(dict.fromkeys(THREADS, str(slot.threads))), _deaf():
            self.process.start()
        theirs.close()  # so that its end is seen here when the process dies

    def events(self) -> Iterator[Event]:
        """Yield what has arrived; a dead process ends its cell as failed, and says so."""
        while self.job and self.connection.poll():
            try:
                what = self.connection.recv()
            except (EOFError, ConnectionError):
                what = self._died(self.job)
            yield Event(self.job.id, what)
            if isinstance(what, Ended):
                self.job, self.asked, self.failed = None, None, what.status == Status.FAILED

    def _died(self, job: Job) -> Ended:
        """Record that the process died in a job, unless the job was over or asked to stop.

        One that a signal ended was lost to the machine, which is no result.
        """
        self.process.join(SECONDS_TO_END)
        if self.asked:
            return Ended(Status.INTERRUPTED, self.asked)
        code = self.process.exitcode
        killed = code is not None and code < 0
        reason = f"the worker process died: {_how_it_died(code)}"
        noted = experiment.note_failure(job.config, job.digest, job.path, reason, lost=killed)
        return Ended(noted, reason)

    def end(self, patience_sec: float) -> None:
        """Close the connection, at which the worker stops politely; kill it if it does not."""
        self.connection.close()
        self.process.join(patience_sec)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _how_it_died(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{hint}"


class Processes:
    """Runs each cell in a worker process; a worker serves cells until one fails.

    Workers are started when needed. They ignore Ctrl-C and SIGTERM: they stop, after a
    checkpoint, when told to or when the connection to the driver closes.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.unused = list(slots)
        self.workers: list[_Worker] = []

    @property
    def free(self) -> int:
        """Slots without a cell."""
        return len(self.unused) + sum(worker.job is None for worker in self.workers)

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker, or to a new one."""
        self._retire(lambda worker: not worker.process.is_alive())
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            worker = _Worker(self.unused.pop(0))
            self.workers.append(worker)
        worker.job = _placed(job, worker.slot)
        with suppress(ConnectionError):  # it died just now: `events` will say so
            worker.connection.send(worker.job)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what the workers have sent, waiting at most so long for the first of it."""
        busy = {worker.connection: worker for worker in self.workers if worker.job}
        ready = connection.wait(list(busy), timeout_sec)
        events = [event for one in ready for event in busy[one].events()]  # type: ignore[index]
        self._retire(lambda worker: worker.failed)
        return events

    def _retire(self, which: Callable[[_Worker], bool]) -> None:
        """Give the slots of such workers without a cell to workers yet to be started."""
        for worker in [one for one in self.workers if one.job is None and which(one)]:
            worker.end(SECONDS_TO_END)
            self.workers.remove(worker)
            self.unused.append(worker.slot)

    def cancel(self, job: str, why: str) -> None:
        """Tell the worker of a job to stop."""
        for worker in self.workers:
            if worker.job and worker.job.id == job:
                worker.asked = why
                with suppress(ConnectionError):
                    worker.connection.send(why)

    def close(self) -> None:
        """End all workers; those at a cell write a checkpoint first."""
        for worker in self.workers:
            worker.end(SECONDS_TO_END)
        self.workers.clear()


@contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is started within."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
    gc.freeze()  # as in `Inline`
    try:
        _run_all(driver)
    finally:
        gc.unfreeze()  # else libraries tell of leaks at the end of the process


def _run_all(driver: Connection) -> None:
    while True:
        try:
            job = driver.recv()
        except (EOFError, ConnectionError):
            return
        if isinstance(job, str):  # asked to stop just after it ended
            continue
        _wait_for_lock(job.path)
        ended = attempt(job, _Sender(driver), lambda: _asked(driver))
        with suppress(ConnectionError):
            driver.send(ended)
        if ended.status == Status.FAILED:
            return


def _asked(driver: Connection) -> str | None:
    if not driver.poll():
        return None
    try:
        return str(driver.recv())
    except (EOFError, ConnectionError):
        return "the driver is gone"


def _wait_for_lock(path: Path) -> None:
    deadline = time.monotonic() + SECONDS_FOR_A_LOCK
    while is_locked(path) and time.monotonic() < deadline:
        time.sleep(0.1)


class _Sender:
    """Sends events to the driver: each score and divergence, and of the steps a few a second."""

    def __init__(self, driver: Connection) -> None:
        self.driver = driver
        self.sent = 0.0

    def __call__(self, what: Progress | Step | Diverged | Scored) -> None:
        now = time.monotonic()
        if isinstance(what, Progress | Step) and now - self.sent < SECONDS_BETWEEN_EVENTS:
            return
        self.sent = now
        with suppress(ConnectionError):  # the driver is gone: `_asked` will notice
            self.driver.send(what)
