"""What Ray is asked, and what it says: the few functions of Ray Core that are used, and no others.

Ray is imported when a cluster is connected to.
"""

import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sagan_bench.core.errors import UserError

NAMESPACE = "sagan-bench"
SECONDS_FOR_AN_ANSWER = 10.0
"""Of an actor that is on a node; one that gives none was not placed yet."""
SECONDS_BETWEEN_CHECKS = 5.0
SECONDS_FOR_A_CONNECTION = 2.0
SECONDS_WITHOUT_HEAD = 20.0
CALLS_AT_A_TIME = 8
"""Of an actor: some wait for news."""
_PORTER = "sagan_bench.execution.engines._ray.porter"

Ref = Any
"""An answer to come."""


class Actor(NamedTuple):
    """An actor, as it is called and by what it is called."""

    name: str
    handle: Any


class Lost(Exception):
    """An actor is gone, with whatever it had under way; the message says why."""

    def __init__(self, why: str, *, taken: bool = False) -> None:
        super().__init__(why)
        self.taken = taken
        """Its node was taken away, as was foreseen."""


class Broken(Exception):
    """An actor cannot do what it was asked, nor could it again."""


class Unavailable(Exception):
    """An actor cannot be reached for now."""


class Cluster:
    """A cluster to which this process is connected.

    Args:
        address: ``auto``, or host:port of its head.

    Raises:
        UserError: Ray is not installed here, or there is no cluster.
    """

    def __init__(self, address: str) -> None:
        with _own_signals():
            self._ray = _connected(address)
        self._errors = self._ray.exceptions
        self.address = str(self._ray.get_runtime_context().gcs_address)
        self._is_there, self._seen, self._checks_at = True, time.monotonic(), 0.0

    def is_there(self) -> bool:
        """Return whether its head took connections a moment ago; else whoever asks it waits.

        After 60 seconds without it Ray ends this process, and nothing is told.

        Raises:
            UserError: it does not, and not only for a moment.
        """
        now = time.monotonic()
        if now >= self._checks_at:
            self._checks_at = now + SECONDS_BETWEEN_CHECKS
            self._is_there = _takes_connections(self.address)
            self._seen = now if self._is_there else self._seen
        if now - self._seen > SECONDS_WITHOUT_HEAD:
            raise self._away("it takes no connections")
        return self._is_there

    def close(self) -> None:
        """Leave the cluster, and what runs there, alone."""
        with _own_signals():
            self._ray.shutdown()

    # --- Actors ---

    def actor(
        self,
        name: str,
        needs: Mapping[str, float],
        code: str,
        environment: Mapping[str, str],
        *given: Any,
    ) -> Actor:
        """Ask for an actor, which comes to a node once there is room.

        It is in the folder of this process, with its command line.

        Args:
            name: of its own.
            needs: of a node.
            code: folder that holds the package, there as here.
            environment: variables.
            given: what its `Porter` is made with.
        """
        own = {key: value for key, value in needs.items() if key not in ("CPU", "GPU")}
        options = {
            "name": name, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": 0,
            "max_concurrency": CALLS_AT_A_TIME, "num_cpus": needs.get("CPU", 0),
            "num_gpus": needs.get("GPU", 0), "resources": own,
        }  # fmt: skip
        with self._told():
            kind = self._ray.remote(**options)(_porter_of(_PORTER))
            here = os.getcwd(), [*sys.argv]
            return Actor(name, kind.remote(*here, code, dict(environment), *given))

    def named(self, prefix: str) -> list[Actor]:
        """Return the actors whose names begin so, whoever asked for them."""
        with self._told():
            names = self._ray.util.list_named_actors()
        actors = []
        for name in names:
            if name.startswith(prefix):
                with suppress(ValueError):  # it is gone meanwhile
                    handle = self._ray.get_actor(name, namespace=NAMESPACE)
                    actors.append(Actor(name, handle))
        return actors

    def call(self, actor: Actor, method: str, *given: Any) -> Ref:
        """Ask an actor for something; `answer` has what comes of it."""
        with self._told():
            return actor.handle.call.remote(method, *given)

    def answered(self, refs: Sequence[Ref], timeout_sec: float) -> list[Ref]:
        """Return those to which there is an answer, waiting so long for the first."""
        with self._told():
            if not refs or not self._ray.wait(refs, timeout=timeout_sec)[0]:
                return []
            done: list[Ref] = self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]
            return done

    def all_answered(self, refs: Sequence[Ref], timeout_sec: float) -> list[Ref]:
        """Return those to which there is an answer, waiting so long for all."""
        with self._told():
            all_of = {"num_returns": len(refs), "timeout": timeout_sec}
            done: list[Ref] = self._ray.wait(refs, **all_of)[0] if refs else []
            return done

    def answer(self, ref: Ref) -> Any:
        """Return an answer that is there.  Raises `Lost`, `Broken`, `Unavailable`, `UserError`."""
        with self._told():
            try:
                return self._ray.get(ref)
            except self._errors.ActorUnavailableError as error:
                raise Unavailable(str(error)) from error
            except self._errors.RayActorError as error:
                raise Lost(_why(str(error)), taken=error.preempted) from error
            except self._errors.RayTaskError as error:
                raise Broken(str(error.cause)) from error

    def end(self, actor: Actor) -> None:
        """End an actor that was not placed, or does not end itself."""
        with self._told():
            self._ray.kill(actor.handle)

    def room(self, needs: Mapping[str, float]) -> int:
        """Return how many such actors the nodes that are there could hold, if nobody else did."""
        with self._told():
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(
            min(int(node.get(name, 0) / amount + 1e-6) for name, amount in needs.items())
            for node in nodes
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise `UserError` where Ray itself does not answer."""
        try:
            yield
        except (self._errors.RayError, ConnectionError, RuntimeError) as error:
            raise self._away(_first_line(error)) from error

    def _away(self, why: str) -> UserError:
        return UserError(
            f"Ray at {self.address} does not answer: {why}; runs under way write checkpoints, and "
            "the same command goes on once there is a cluster"
        )


def _connected(address: str) -> Any:
    """Return the module of Ray, connected."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"--engine ray: Ray is not here ({error}); pip install 'sagan-bench[ray]'"
        ) from None
    if ray.is_initialized():
        return ray
    known = _known(address)
    try:
        if known and not _takes_connections(known):  # which Ray would wait for, for many minutes
            raise ConnectionError(f"{known} takes no connections")
        if known and _is_of_the_web(known):  # likewise
            raise ConnectionError(
                f"{known} is a web server: is it the port of the head (6379), not the dashboard's "
                "(8265)?"
            )
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
    except Exception as error:  # it says in many ways that there is none
        raise UserError(
            f"no connection to Ray at {address}: {_first_line(error)}; begin a cluster (ray start "
            "--head), or give --address the HOST:6379 of its head, on a machine that is part of it"
        ) from error
    # Of an actor that is lost it prints ten lines on stdout; the engine has its own words for it.
    ray._private.worker._worker_logs_enabled = False
    return ray


def _known(address: str) -> str:
    """Return the host:port that an address stands for; empty where only Ray finds it out."""
    if address != "auto":
        return address
    file = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    with suppress(OSError, ValueError):
        return os.environ.get("RAY_ADDRESS") or file.read_text().strip()
    return ""


def _takes_connections(address: str) -> bool:
    with suppress(OSError, ValueError), _connection(address):
        return True
    return False


def _is_of_the_web(address: str) -> bool:
    """Return whether what is there speaks as Ray's dashboard does, which its head does not."""
    with suppress(OSError, ValueError), _connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(5) == b"HTTP/"
    return False


def _connection(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), SECONDS_FOR_A_CONNECTION)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the answers of this process to signals, which Ray changes."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set them
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _why(said: str) -> str:
    """Return in words why an actor is gone; Ray says it in ten lines."""
    small = said.lower()
    if "its node has died" in small:
        return "its node is gone"
    if "low on memory" in small:
        return "out of memory: Ray ended its actor; give fewer runs to a node"
    return "its actor in Ray was ended (out of memory?)"


def _porter_of(module: str) -> type[Any]:
    """Return the class of an actor, which travels by value: it needs no package to be read.

    So it can put the package that was handed over before all others of its machine.
    """

    class Porter:
        def __init__(
            self, here: str, words: list[str], code: str, environment: dict[str, str], *given: Any
        ) -> None:
            import importlib
            import os
            import socket
            import sys

            self.wrong, node = "", socket.gethostname()
            for folder, mend in (here, "give the command in a folder"), (code, "choose --runs"):
                if not os.path.isdir(folder):
                    self.wrong = (
                        f"{node} does not see {folder}; {mend} on a file system that all nodes of "
                        "the cluster share"
                    )
                    return
            try:
                os.chdir(here)
                sys.argv = words  # which records keep
                before = os.environ.get("PYTHONPATH")
                os.environ["PYTHONPATH"] = f"{code}:{before}" if before else code
                os.environ.update(environment)
                sys.path.insert(0, code)
                main = vars(sys.modules["__main__"])
                if main.get("__file__", "").endswith("default_worker.py"):
                    del main["__file__"]  # else each worker would read Ray
                self.porter = importlib.import_module(module).Porter(*given)
            except Exception as error:  # noqa: BLE001  # told by `call`
                self.wrong = f"{node}: {type(error).__name__}: {error}"

        def call(self, method: str, *given: Any) -> Any:
            if self.wrong:
                raise RuntimeError(self.wrong)
            return getattr(self.porter, method)(*given)

    return Porter
