"""A run to be made, what happens in it, and what an engine does; none of it needs torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.extensions import Extension
from sagan_bench.runs.command import Command
from sagan_bench.runs.records import Status

if TYPE_CHECKING:
    from sagan_bench.session.events import Event as RunEvent


@dataclass(frozen=True)
class Job:
    """A run to be made, ours or that of a command.

    Its ``digest`` is empty while the data's content is not known.
    """

    id: str
    config: RunConfig | Command
    path: Path
    digest: str
    own: tuple[Extension, ...] = field(default=(), kw_only=True)
    """Files of components that it needs, for a process that has not loaded them."""

    @property
    def ours(self) -> RunConfig:
        """Its configuration, where this package makes the run.  Raises `TypeError` elsewhere."""
        if isinstance(self.config, Command):
            raise TypeError(f"{self.id} is the run of a command")
        return self.config

    @property
    def variant(self) -> str:
        """The name of its variant."""
        return self.config.variant

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.config.seed


class Ended(NamedTuple):
    """A run is over, for now."""

    status: Status
    reason: str | None


class Placed(NamedTuple):
    """A run waits in a queue, or has come to another machine."""

    node: str | None
    waits_for: str | None
    """Why it is not on a machine yet, in the word of the queue."""


class Event(NamedTuple):
    """What happened in the run ``job``."""

    job: str
    what: "RunEvent | Ended | Placed"


class Place(NamedTuple):
    """For what an engine is opened."""

    folder: Path
    """Of the experiment."""
    device: str
    """As it is asked for; ``auto`` is what is there."""
    jobs: int | None
    """Runs at a time; None leaves that to the engine."""
    runs: int
    """Runs that may be asked for before the first has ended; more room would stay empty."""


class Engine(Protocol):
    """Makes runs, as many at a time as it has room for.

    A component of `ENGINES`.  On this machine it is made as ``ENGINES[name](slots, stop)``: where
    it may run what, and what is asked why all should stop.  One that makes runs elsewhere has
    settings (`execution.profiles`), and is made as ``ENGINES[name](place, settings)``; its class
    has three functions more.  ``stop(experiment, why)``, by which another process has all runs of
    an experiment stop, returns how many have not; ``examined(place, settings)`` yields what
    ``doctor`` finds of it from here; and ``send(place, settings, errand, tell)`` has an errand done
    on a node (`execution.errands`): it tells ``tell`` often what is waited for, takes the errand
    back where that raises, and returns the answer or raises `UserError`.
    """

    detaches: bool
    """Whether its runs go on without the process that asked for them."""

    @property
    def free(self) -> int:
        """Runs for which there is room."""

    def submit(self, job: Job) -> None:
        """Begin a run, for which there must be room, or take up one that is under way."""

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what happened, waiting so long for something to happen."""

    def cancel(self, job: str, why: str) -> None:
        """Ask a run to stop as soon as nothing is lost; its `Ended` follows."""

    def close(self) -> None:
        """End all workers; a run under way is asked to stop first, unless the engine detaches."""
