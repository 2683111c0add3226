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


class Event(NamedTuple):
    """What happened in the run ``job``."""

    job: str
    what: "RunEvent | Ended"


class Engine(Protocol):
    """Makes runs, as many at a time as there are slots.

    A component of `ENGINES`, made as ``ENGINES[name](slots, stop)``: where it may run what, and
    what is asked why all should stop.
    """

    @property
    def free(self) -> int:
        """Slots without a run."""

    def submit(self, job: Job) -> None:
        """Begin a run; one slot must be free."""

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what happened, waiting so long for something to happen."""

    def cancel(self, job: str, why: str) -> None:
        """Ask a run to stop as soon as nothing is lost; its `Ended` follows."""

    def close(self) -> None:
        """End all workers; a run under way is asked to stop first."""
