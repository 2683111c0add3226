"""Runs in actors of Ray, on whatever nodes a cluster has, while this process asks for them.

An actor holds a worker as this machine would have it.  It ends where nobody asks any more; until
then another process takes up what it has under way.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ENGINES
from sagan_bench.core.stops import StopReason
from sagan_bench.execution import messages
from sagan_bench.execution.attempt import note_failure
from sagan_bench.execution.engine import Ended, Event, Job, Place, Placed
from sagan_bench.execution.engines._ray import actors, errand
from sagan_bench.execution.engines._ray.cluster import (
    SECONDS_FOR_AN_ANSWER,
    Actor,
    Broken,
    Cluster,
    Lost,
    Ref,
    Unavailable,
)
from sagan_bench.execution.engines._ray.folder import Folder
from sagan_bench.execution.engines._ray.settings import Settings
from sagan_bench.execution.engines._worker import DIED
from sagan_bench.execution.losses import BAD_STARTS, Losses, Starts, end_in, record_of
from sagan_bench.runs.records import Status
from sagan_bench.training.loop import Step

SECONDS_OF_A_POLL = 5.0
"""Which an actor answers at once where a score or an end is there."""
SECONDS_BETWEEN_LOOKS = 5.0
"""At the nodes of the cluster."""
SECONDS_BETWEEN_TRIES = 0.2
SECONDS_TO_STOP = 60.0
"""After which a run that was told to stop is ended."""
SECONDS_IDLE = 30.0
"""After which an actor without a run is let go."""

_log = logging.getLogger(__name__)


@dataclass
class _Cell:
    """A run, and the actor that has it."""

    job: Job
    actor: Actor
    ref: Ref = None
    """Of the answer that is waited for."""
    waits: bool = False
    """Whether the actor is on no node yet, as far as is known."""
    is_up: bool = False
    """Whether the actor has begun it."""
    is_ours: bool = True
    """Whether this process asked for the actor, which then has our code."""
    offset: int = 0
    """Of the news that were not heard yet."""
    why: str | None = None
    """Why it is to stop."""
    since: float = inf
    """When it was told so."""


@dataclass
class _Idle:
    """An actor without a run."""

    actor: Actor
    since: float = field(default_factory=time.monotonic)


@ENGINES.register("ray")
class Ray:
    """Begins an actor for each run at a time, and hears from each by long polls."""

    detaches = False

    def __init__(self, place: Place, settings: Settings) -> None:
        self.folder, self.place, self.settings = Folder(place.folder), place, settings
        self.cluster = Cluster(settings.address)
        self.folder.note(self.cluster.address)
        self.cells: dict[str, _Cell] = {}
        self.idle: list[_Idle] = []
        self.ready: list[Event] = []
        self.losses, self.starts = Losses(), Starts()
        self.room, self.looks_at, self.warned = 0, -inf, False
        self.is_stopped = False
        """By another process (`stop`)."""
        self.under_way = self._under_way()

    def _under_way(self) -> dict[tuple[str, str], tuple[Actor, str]]:
        """Return the actors that an earlier process began, by the run that each has under way."""
        under_way = {}
        for actor, held in actors.placed(self.cluster, self.folder.prefix):
            if held:
                name, digest, node = held
                under_way[name, digest] = actor, node
            else:
                self.cluster.call(actor, "leave", StopReason.ABANDONED)
        return under_way

    @property
    def free(self) -> int:
        """Runs that may be asked for: one more than there is room, so that a cluster may grow."""
        if self.is_stopped:
            return 0
        at_a_time = self.place.jobs or self._look() + 1
        return max(0, min(self.place.runs, at_a_time) - len(self.cells))

    def _look(self) -> int:
        """Return how many runs the nodes have room for, as seen a moment ago at most."""
        if time.monotonic() >= self.looks_at and self.cluster.is_there():
            self.looks_at = time.monotonic() + SECONDS_BETWEEN_LOOKS
            self.room = self.cluster.room(self.settings.needs)
        return self.room

    def submit(self, job: Job) -> None:
        """Take a run up that is under way, or give it to an actor."""
        if taken := self.under_way.pop((job.id, job.digest), None):
            actor, node = taken
            self.cells[job.id] = _Cell(job, actor, is_up=True, is_ours=False)
            self._ask(self.cells[job.id])
            self.ready.append(Event(job.id, Placed(node, None)))
        else:
            self._begin(job)

    def cancel(self, job: str, why: str) -> None:
        """Have a run write a checkpoint and end; one that waits for a node is forgotten."""
        if (cell := self.cells.get(job)) is None:
            return
        if not cell.is_up and self.cluster.answered([cell.ref], 0):
            self._hear(cell)
        if job not in self.cells:
            return
        cell.why, cell.since = why, time.monotonic()
        if cell.is_up:
            self.cluster.call(cell.actor, "stop", why)
        else:
            self._end(cell)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what happened.

        Raises:
            UserError: Ray does not answer, or the first runs fail before they begin.
        """
        now = time.monotonic()
        self.cluster.is_there()
        for cell in [cell for cell in self.cells.values() if now - cell.since > SECONDS_TO_STOP]:
            self._end(cell)
        for idle in [idle for idle in self.idle if now - idle.since > SECONDS_IDLE]:
            self.idle.remove(idle)
            self.cluster.call(idle.actor, "leave", StopReason.ABANDONED)
        waited_for = {cell.ref: cell for cell in self.cells.values()}
        for ref in self.cluster.answered(list(waited_for), 0 if self.ready else timeout_sec):
            self._hear(waited_for[ref])
        self._use_idle()
        events, self.ready = self.ready, []
        return events

    # --- Actors ---

    def _begin(self, job: Job) -> None:
        """Give a run to an actor that has none, or to a new one."""
        if self.idle:
            self.cells[job.id] = _Cell(job, self.idle.pop().actor)
        else:
            self.cells[job.id] = _Cell(job, self._actor(), waits=True)
            self.ready.append(Event(job.id, Placed(None, self.settings.in_words)))
        self._ask(self.cells[job.id])

    def _use_idle(self) -> None:
        """Give runs whose actors wait for a node to actors that have none any more."""
        for cell in [cell for cell in self.cells.values() if cell.waits]:
            if self.idle and not self.cluster.answered([cell.ref], 0):
                self.cluster.end(cell.actor)
                self._begin(cell.job)

    def _ask(self, cell: _Cell) -> None:
        """Ask the actor of a run to begin it, or what is new of it."""
        if cell.is_up:
            asks: tuple[Any, ...] = "news", cell.offset, SECONDS_OF_A_POLL
        else:
            asks = "begin", messages.handed(cell.job, self.folder.path)
        cell.ref = self.cluster.call(cell.actor, *asks)

    def _actor(self) -> Actor:
        settings = self.settings
        if not (self.warned or self._look()):
            self.warned = True
            _log.warning(
                "no node of the cluster has %s; runs wait until such a node joins",
                settings.in_words,
            )
        return actors.begun(
            self.cluster, self.folder.path, self.folder.prefix, self.place.device, settings
        )

    def _end(self, cell: _Cell) -> None:
        """End an actor that does not end its run, or has not begun it."""
        self.cluster.end(cell.actor)
        self._over(cell, self._stopped(cell), keep=False)

    def _stopped(self, cell: _Cell) -> Ended:
        """Return how a run ended that was to stop: so, unless it was over before."""
        record = record_of(cell.job.path)
        over = record and record.status.is_over
        if record and over:
            return Ended(record.status, record.reason)
        return Ended(Status.INTERRUPTED, cell.why)

    # --- What they say ---

    def _hear(self, cell: _Cell) -> None:
        """Take notice of an answer, and ask again while the run goes on."""
        try:
            said = self.cluster.answer(cell.ref)
        except Unavailable:
            time.sleep(SECONDS_BETWEEN_TRIES)
            self._ask(cell)
            return
        except Lost as lost:
            self._lost(cell, str(lost), taken=lost.taken)
            return
        except Broken as broken:
            self.cluster.end(cell.actor)
            self._over(cell, note_failure(cell.job, str(broken)), keep=False)
            return
        if cell.is_up:
            self._take(cell, *said)
        else:
            cell.is_up, cell.waits = True, False
            self.ready.append(Event(cell.job.id, Placed(said, None)))
        if self.cells.get(cell.job.id) is cell:
            self._ask(cell)

    def _take(self, cell: _Cell, lines: list[str], offset: int) -> None:
        """Take notice of what an actor said."""
        cell.offset = offset
        for line in lines:
            try:
                what = messages.event_in(line)
            except messages.Unreadable as error:
                _log.info("%s: %s", cell.job.id, error)
                continue
            if isinstance(what, Ended):
                self._ended(cell, what)
                return
            if isinstance(what, Step):
                self.starts.stepped()
            self.ready.append(Event(cell.job.id, what))

    def _ended(self, cell: _Cell, ended: Ended, *, keep: bool = True) -> None:
        """Take notice of the end of an attempt, which is not that of the run if it was lost."""
        reason = ended.reason or ""
        if cell.why or ended.status.is_over:
            self._over(cell, ended, keep=keep)
        elif reason.startswith(DIED):  # the worker, not the actor
            self._again(cell, self.losses.take(cell.job, reason), reason, keep=True)
        elif reason == StopReason.UNHEARD:  # this process did not ask for too long
            self._again(cell, None, reason, keep=False)
        else:
            self.is_stopped |= reason == StopReason.INTERRUPTED
            self._over(cell, ended, keep=keep)

    def _lost(self, cell: _Cell, why: str, *, taken: bool) -> None:
        """Take notice that an actor is gone; one that a node was taken from is no loss."""
        said = end_in(cell.job.path, cell.actor.name)
        if cell.why:
            self._over(cell, self._stopped(cell), keep=False)
        elif said and said.reason != StopReason.ABANDONED:  # as a worker says that outlived it
            self._ended(cell, said, keep=False)
        else:
            ended = None if taken else self.losses.take(cell.job, why)
            self._again(cell, ended, why, keep=False)

    def _again(self, cell: _Cell, ended: Ended | None, why: str, *, keep: bool) -> None:
        """Begin a run again, unless that is its end."""
        self._over(cell, ended, keep=keep)
        if ended is None:
            _log.warning("%s is run again: %s", cell.job.id, why)
            self._begin(cell.job)

    def _over(self, cell: _Cell, ended: Ended | None, *, keep: bool = True) -> None:
        """Forget a run, say how it ended, and keep its actor if it may serve others."""
        del self.cells[cell.job.id]
        if keep and cell.is_ours:
            self.idle.append(_Idle(cell.actor))
        elif keep:
            self.cluster.call(cell.actor, "leave", StopReason.ABANDONED)
        if ended is None:
            return
        self.ready.append(Event(cell.job.id, ended))
        if self.starts.are_bad_after(cell.job, ended) and self.place.runs > BAD_STARTS:
            raise UserError(
                f"the first {BAD_STARTS} runs failed before their first step, so that no more are "
                f"begun; mend this, and add --retry-failed: {ended.reason}"
            )

    # --- The end ---

    def close(self) -> None:
        """Have the runs under way write checkpoints, and end all actors."""
        up = [cell.actor for cell in self.cells.values() if cell.is_up]
        waiting = [cell.actor for cell in self.cells.values() if not cell.is_up]
        with suppress(UserError):  # Ray does not answer: they end by themselves
            up += [idle.actor for idle in self.idle]
            left = actors.left(self.cluster, up, StopReason.ABANDONED, SECONDS_TO_STOP)
            for actor in (*left, *waiting):
                self.cluster.end(actor)
            if not self.under_way:
                self.folder.forget()
        self.cluster.close()

    examined, send = staticmethod(errand.examined), staticmethod(errand.sent)

    @classmethod
    def stop(cls, experiment: Path, why: str) -> int:
        """Have all runs of an experiment stop after a checkpoint.

        Returns:
            Those that have not, so that it is called until there are none.  None where the cluster
            is gone: runs that were in it end by themselves.

        Raises:
            UserError: Ray does not answer any more.
        """
        folder = Folder(experiment)
        if (address := folder.address) is None:
            return 0
        try:
            cluster = Cluster(address)
        except UserError as error:
            _log.warning("%s: runs that are in it write checkpoints by themselves", error)
            return 0
        theirs = [actor for actor, _ in actors.placed(cluster, folder.prefix)]
        left = actors.left(cluster, theirs, why, SECONDS_FOR_AN_ANSWER)
        if not left:
            folder.forget()
            cluster.close()
        return len(left)
