"""What tests of the engine `ray` share: a pretended Ray, whose actors are threads of this process.

The actors are real (`Porter`), and their runs are pretended (``fakes/cell.py``).
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pretended_slurm import FAKES, Courses

from sagan_bench.execution import code, messages
from sagan_bench.execution.engine import Ended, Event, Job, Place
from sagan_bench.execution.engines import ray
from sagan_bench.execution.engines._ray import actors, porter
from sagan_bench.execution.engines._ray import cluster as ray_words
from sagan_bench.execution.engines._ray.settings import Settings
from sagan_bench.execution.engines._worker import DIED
from sagan_bench.execution.engines.ray import Ray
from sagan_bench.runs.environment import ENGINE, JOB
from sagan_bench.runs.records import Status

LEFT = "the driver is gone"
UNHEARD = "the driver was not heard from"


class RayError(Exception):
    """As Ray's."""


class ActorError(RayError):
    """As Ray's `RayActorError`."""

    def __init__(self, text: str, preempted: bool = False) -> None:
        super().__init__(text)
        self.preempted = preempted


class UnavailableError(ActorError):
    """As Ray's `ActorUnavailableError`."""


class TaskError(RayError):
    """As Ray's `RayTaskError`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"ten lines of traceback\n{cause}")
        self.cause = cause


class Exit(BaseException):
    """What `exit_actor` raises."""


class Worker:
    """In the place of `Processes`: makes a pretended run in a process."""

    def __init__(self, slots: Sequence[Any]) -> None:
        (self.slot,) = slots
        self.job: Job | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.offset = self.number = 0

    def submit(self, job: Job) -> None:
        self.job, self.offset, self.number = job, 0, self.number + 1
        self.file = job.path.parent / f".{job.path.name}.{id(self)}-{self.number}.jobs"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(messages.of_job(job))
        words = [sys.executable, "-I", "-S", str(FAKES / "cell.py"), "-P", "-m", "", str(self.file)]
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
        self.process = subprocess.Popen(words, env=environment)

    def _beside(self, end: str) -> Path:
        return self.file.with_name(f"{self.file.stem}-0.{end}")

    def poll(self, timeout_sec: float) -> list[Event]:
        if self.job is None or self.process is None:
            return []
        job, code, file = self.job, self.process.poll(), self._beside("events")
        lines = file.read_bytes().decode().splitlines() if file.exists() else []
        whats = [messages.event_in(line) for line in lines[self.offset :]]
        self.offset = len(lines)
        if code is not None and not (whats and isinstance(whats[-1], Ended)):
            died = f"{DIED}: {signal.Signals(-code).name}"
            whats.append(Ended(Status.INTERRUPTED, died))
        if whats and isinstance(whats[-1], Ended):
            self.process.wait()
            self.job = None
        return [Event(job.id, what) for what in whats]

    def cancel(self, job: str, why: str) -> None:
        half = self._beside("half")
        half.write_text(why)
        half.rename(self._beside("stop"))

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.cancel("", LEFT)
            self.process.wait()


class Handle:
    """An actor, seen from those who call it."""

    def __init__(self, own: "PretendedRay", name: str, needs: float, make: Callable[[], Any]):
        self.own, self.name, self.needs, self.make = own, name, needs, make
        self.node: str | None = None
        self.it: Any = None
        self.waiting = list[tuple[Future[Any], tuple[Any, ...]]]()
        self.open = list[Future[Any]]()
        self.dead: ActorError | None = None
        self.call = SimpleNamespace(remote=self._remote)

    def _remote(self, *given: Any) -> Future[Any]:
        if not self.own.is_up:
            raise RayError("Failed to connect to GCS.\nAnd more.")
        answer = Future[Any]()
        if self.own.unavailable.pop(given[0], None):
            answer.set_exception(UnavailableError("not now"))
        elif self.dead:
            answer.set_exception(self.dead)
        elif self.node is None:
            self.waiting.append((answer, given))
        else:
            self._serve(answer, given)
        return answer

    def _serve(self, answer: Future[Any], given: tuple[Any, ...]) -> None:
        self.open.append(answer)

        def serve() -> None:
            try:
                said = self.it.call(*given)
            except Exit:
                self.die(ActorError("exit_actor() is called."))
            except Exception as error:  # noqa: BLE001
                _set(answer, TaskError(error))
            else:
                _set(answer, said)

        thread = threading.Thread(target=serve, daemon=True)
        self.own.threads.append(thread)
        thread.start()

    def place(self, node: str) -> None:
        self.node, self.it = node, self.make()
        waiting, self.waiting = self.waiting, []
        for answer, given in waiting:
            self._serve(answer, given)

    def die(self, error: ActorError) -> None:
        self.dead = self.dead or error
        self.own.actors.pop(self.name, None)
        for answer in (*self.open, *(answer for answer, _ in self.waiting)):
            _set(answer, self.dead)
        self.own.place_all()


def _set(answer: Future[Any], said: Any) -> None:
    if answer.done():
        return
    if isinstance(said, Exception):
        answer.set_exception(said)
    else:
        answer.set_result(said)


class PretendedRay(Courses):
    """A pretended cluster: nodes with so many cores, and actors by name."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir()
        self.nodes: dict[str, float] = {"n1": 2}
        self.actors: dict[str, Handle] = {}
        self.made: list[Handle] = []
        """All actors, also those that are no more: their threads are to end with the test."""
        self.threads: list[threading.Thread] = []
        """Of all calls: one that ended after the test would import the real `ray.actor`."""
        self.unavailable: dict[str, bool] = {}
        """Methods whose next call does not reach its actor."""
        self.is_up, self.begun = True, 0
        self.head = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.head.getsockname()[1]}"

    # --- What Ray's module has ---

    def module(self) -> ModuleType:
        """Return what stands for the module `ray`."""
        module = ModuleType("ray")
        known: dict[str, Any] = {
            "is_initialized": lambda: False, "init": self._init, "shutdown": lambda: None,
            "remote": self._remote, "wait": _wait, "get": lambda answer: self._checked(answer),
            "kill": lambda actor: actor.die(ActorError("killed")), "nodes": self._nodes,
            "get_actor": lambda name, namespace: self.actors[name],
            "util": SimpleNamespace(list_named_actors=lambda: [*self.actors]),
            "get_runtime_context": lambda: SimpleNamespace(gcs_address=self.address),
            "actor": ModuleType("ray.actor"),
            "_private": SimpleNamespace(worker=SimpleNamespace()),
            "exceptions": SimpleNamespace(
                RayError=RayError, RayActorError=ActorError, RayTaskError=TaskError,
                ActorUnavailableError=UnavailableError,
            ),
        }  # fmt: skip
        vars(module).update(known)
        return module

    def _init(self, **given: Any) -> None:
        if not self.is_up:
            raise ConnectionError("Could not find any running Ray instance.\nAnd more.")

    def _checked(self, answer: Future[Any]) -> Any:
        if not self.is_up:
            raise RayError("Failed to connect to GCS.\nAnd more.")
        return answer.result()

    def _remote(self, **options: Any) -> Callable[[type[Any]], Any]:
        assert (options["lifetime"], options["max_restarts"]) == ("detached", 0)

        def begin(kind: type[Any], *given: Any) -> Handle:
            self.begun += 1
            name = str(options["name"])
            actor = Handle(self, name, options["num_cpus"], lambda: kind(*given))
            self.actors[name] = actor
            self.made.append(actor)
            self.place_all()
            return actor

        return lambda kind: SimpleNamespace(remote=lambda *given: begin(kind, *given))

    def _nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": cores}} for cores in self.nodes.values()]

    # --- What tests do ---

    def place_all(self) -> None:
        """Have actors come to nodes where there is room."""
        for actor in [actor for actor in self.actors.values() if actor.node is None]:
            for name, cores in self.nodes.items():
                there = [other for other in self.actors.values() if other.node == name]
                if sum(other.needs for other in there) + actor.needs <= cores:
                    actor.place(name)
                    break

    def join(self, name: str, cores: float) -> None:
        """Have a node join."""
        self.nodes[name] = cores
        self.place_all()

    def lose(self, actor: Handle, text: str = "killed", *, preempted: bool = False) -> None:
        """End an actor; its worker sees that it is gone, and writes a checkpoint."""
        _end(actor.it.porter)
        actor.die(ActorError(text, preempted))

    def actor(self) -> Handle:
        """Return the first actor."""
        return next(iter(self.actors.values()))

    def engine(
        self, folder: Path, *, runs: int = 100, jobs: int | None = None, **given: Any
    ) -> Ray:
        """Return the engine of an experiment in a folder."""
        return Ray(Place(folder, "cpu", jobs, runs), Settings().model_copy(update=given))

    def end_process(self) -> None:
        """End the actor whose thread this is."""
        for actor in list(self.actors.values()):
            if actor.it and actor.it.porter.thread is threading.current_thread():
                actor.die(ActorError("gone"))

    def end_all(self) -> None:
        """End all actors, also those whose threads outlived them, and the head.

        One left would end the process of the tests when its lease is over.
        """
        self.head.close()
        for actor in self.made:
            if actor.it and not actor.it.wrong:
                _end(actor.it.porter)
        for thread in self.threads:
            thread.join()


def _end(its: porter.Porter) -> None:
    with its.changed:
        its.leaves, its.job = True, None
        its.changed.notify_all()
    its.thread.join()


def _wait(
    answers: Sequence[Future[Any]], *, num_returns: int = 1, timeout: float
) -> tuple[list[Future[Any]], list[Future[Any]]]:
    deadline = time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        done = wait([a for a in answers if not a.done()], left, FIRST_COMPLETED)
        ready = [answer for answer in answers if answer.done()]
        if len(ready) >= num_returns or not done.done:
            return ready, [answer for answer in answers if answer not in ready]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedRay]:
    """A pretended Ray that is the module of that name, and answers at once."""
    pretended = PretendedRay(tmp_path / "ray-cluster")
    module = pretended.module()
    module.actor.exit_actor = _exit
    for name in ("ray", "ray.actor"):
        monkeypatch.setitem(sys.modules, name, module if name == "ray" else module.actor)
    monkeypatch.setenv("FAKE_SLURM", str(pretended.home))
    monkeypatch.setenv("RAY_ADDRESS", pretended.address)
    for name in ("PYTHONPATH", "SAGAN_BENCH_CACHE", ENGINE, JOB):  # which an actor sets
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("path", "argv"):
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    monkeypatch.setattr(ray_words, "SECONDS_FOR_A_CONNECTION", 0.05)  # its head says nothing
    monkeypatch.setattr(code, "copied", _copied)
    monkeypatch.setattr(porter, "Processes", Worker)
    monkeypatch.setattr(porter, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(porter, "end_process", pretended.end_process)
    monkeypatch.setattr(ray, "SECONDS_OF_A_POLL", 0.02)
    monkeypatch.setattr(actors, "SECONDS_FOR_AN_ANSWER", 0.3)
    monkeypatch.setattr(ray, "SECONDS_BETWEEN_LOOKS", 0.02)
    yield pretended
    pretended.end_all()


def _copied(folder: Path) -> Path:
    (folder / "code").mkdir(parents=True, exist_ok=True)
    return folder / "code"


def _exit() -> None:
    raise Exit
