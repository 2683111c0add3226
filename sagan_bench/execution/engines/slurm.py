"""Runs as elements of SLURM's job arrays, which go on without whoever asked for them.

The queue says whether a run is under way, its record how it ended, its events how far it is.  So
this engine has no state that matters: another process takes up what this one handed over.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ENGINES
from sagan_bench.execution import code, messages
from sagan_bench.execution.engine import Ended, Event, Job, Place, Placed
from sagan_bench.execution.engines._slurm import endings, errand, queue
from sagan_bench.execution.engines._slurm.folder import NAME, Folder, Spot
from sagan_bench.execution.engines._slurm.queue import Element, Refused, Unreachable
from sagan_bench.execution.engines._slurm.settings import Settings
from sagan_bench.execution.losses import BAD_STARTS, Losses, Starts
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Event as RunEvent
from sagan_bench.session.events import Progress
from sagan_bench.training.loop import Step

SECONDS_BETWEEN_LOOKS = 10.0
"""At the queue."""
SECONDS_TO_STOP = 60.0
"""After which a run that was told to stop is ended."""
SECONDS_BETWEEN_WARNINGS = 60.0
MOST_READ = 40
"""Runs whose events are read at a poll."""

_log = logging.getLogger(__name__)


@dataclass
class _Cell:
    """A run that was handed over."""

    job: Job
    spot: Spot
    element: Element
    offset: int = 0
    """Of the events that were not read yet."""
    said: Ended | None = None
    """What it said at its end, which is not the end where the queue holds it."""
    why: str | None = None
    """Why it is to stop."""
    since: float = inf
    """When it was told so."""


@ENGINES.register("slurm")
class Slurm:
    """Hands runs over to sbatch, all that wait at once, and watches queue, records and events."""

    detaches = True

    def __init__(self, place: Place, settings: Settings) -> None:
        self.folder, self.place, self.settings = Folder(place.folder), place, settings
        self.kept: list[Job] = []
        """Not handed over yet."""
        self.cells: dict[str, _Cell] = {}
        self.queued: dict[Spot, Element] = {}
        self.ready: list[Event] = []
        self.losses, self.starts = Losses(), Starts()
        self.first = 0
        """Of the runs whose events are read next."""
        self.looks_at = self.submits_at = self.warns_at = -inf
        self.reached = False

    @property
    def free(self) -> int:
        """Runs that may yet be asked for."""
        return max(0, self.place.runs - len(self.cells) - len(self.kept))

    def submit(self, job: Job) -> None:
        """Keep a run for `poll`, which takes it up if it is in the queue, or hands it over."""
        self.kept.append(job)

    def cancel(self, job: str, why: str) -> None:
        """Take a run out of the queue, or tell it to stop by its file."""
        if kept := [waiting for waiting in self.kept if waiting.id == job]:
            self.kept.remove(kept[0])
            self.ready.append(Event(job, Ended(Status.INTERRUPTED, why)))
        elif cell := self.cells.get(job):
            cell.why, cell.since = why, time.monotonic()
            self.folder.stop(cell.spot, why)
            queue.take_out([cell.element.id])
            self._look_soon()

    def close(self) -> None:
        """Leave the runs to SLURM."""

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what happened; hands over what was submitted before.

        Raises:
            UserError: SLURM refuses the runs, cannot be reached at all, or the first of them fail
                before they begin.
        """
        now = time.monotonic()
        tries = bool(self.kept) and now >= self.submits_at
        if (now >= self.looks_at or tries) and self._look() and tries:
            self._hand_over()
        running = [cell for cell in self.cells.values() if not cell.element.waits]
        self.first = self.first + MOST_READ if self.first + MOST_READ < len(running) else 0
        for cell in islice(running, self.first, self.first + MOST_READ):
            self._read(cell)
        events, self.ready = self.ready, []
        if not events:
            time.sleep(timeout_sec)
        return events

    # --- The queue ---

    def _look_soon(self) -> None:
        self.looks_at = min(self.looks_at, time.monotonic() + SECONDS_BETWEEN_LOOKS / 5)

    def _look(self) -> bool:
        """Look at the queue, and take notice of what changed; return whether it could be seen."""
        self.looks_at = time.monotonic() + SECONDS_BETWEEN_LOOKS
        try:
            elements = queue.elements()
        except Unreachable as error:
            self._warn(f"SLURM does not answer ({error}); runs go on, and it is tried again")
            return False
        except Refused as error:
            raise UserError(f"squeue: {error}") from None
        spots = ((self.folder.spot_of(element), element) for element in elements)
        self.queued = {spot: element for spot, element in spots if spot}
        self.reached = True
        self._take_up()
        for cell in list(self.cells.values()):
            if element := self.queued.get(cell.spot):
                self._see(cell, element)
            else:
                self._end(cell)
        return True

    def _warn(self, text: str) -> None:
        """Say that SLURM does not answer, now and then.  Raises `UserError` if it never did."""
        if not self.reached:
            raise UserError(f"{text}: give the same command again once it does")
        if time.monotonic() >= self.warns_at:
            self.warns_at = time.monotonic() + SECONDS_BETWEEN_WARNINGS
            _log.warning("%s", text)

    def _take_up(self) -> None:
        """Take up the runs that an earlier process handed over."""
        known = {cell.spot for cell in self.cells.values()}
        unknown = [spot for spot in self.queued if spot not in known] if self.kept else []
        under_way = {self.folder.key_at(spot): spot for spot in unknown}
        kept, self.kept = self.kept, []
        for job in kept:
            if spot := under_way.get((job.id, job.digest)):
                self.cells[job.id] = _Cell(job, spot, self.queued[spot])
                self._say_place(job, self.queued[spot])
            else:
                self.kept.append(job)

    def _see(self, cell: _Cell, element: Element) -> None:
        """Take notice of how a run stands in the queue."""
        before, cell.element = cell.element, element
        if before != element:
            self._say_place(cell.job, element)
        if element.waits and element.reason == "BeginTime" and cell.offset:
            queue.begin_now(element.id)  # it was put back: SLURM waits two minutes
        if time.monotonic() - cell.since > SECONDS_TO_STOP:
            cell.since = time.monotonic()
            queue.end(element.id)

    def _say_place(self, job: Job, element: Element) -> None:
        waits_for = element.reason if element.waits else None
        self.ready.append(Event(job.id, Placed(element.node or None, waits_for)))

    # --- Runs ---

    def _read(self, cell: _Cell) -> None:
        """Take notice of what a run said since; of steps, of the last."""
        for what in self._news(cell):
            if isinstance(what, Ended):
                cell.said = what
                if what.status.is_over:
                    self._over(cell, what)
                    return
                self._look_soon()
                continue
            cell.said = None  # it was begun again
            if isinstance(what, Step):
                self.starts.stepped()
            self.ready.append(Event(cell.job.id, what))

    def _news(self, cell: _Cell) -> Iterator[RunEvent | Ended]:
        text, cell.offset = self.folder.news(cell.spot, cell.offset)
        last: Step | Progress | None = None
        for line in text.splitlines():
            try:
                what = messages.event_in(line)
            except messages.Unreadable as error:
                _log.info("%s: %s", self.folder.events(cell.spot), error)
                continue
            if isinstance(what, Step | Progress):
                last = what
                continue
            if last:
                yield last
            last = None
            yield what
        if last:
            yield last

    def _end(self, cell: _Cell) -> None:
        """Find out what became of a run that the queue does not hold any more."""
        self._read(cell)
        if cell.job.id not in self.cells:
            return
        try:
            end = queue.end_of(cell.element.id)
        except Unreachable:
            return
        if end and end.state in endings.UNDER_WAY:
            return
        left = endings.Left(cell.job, cell.said, cell.why, end, never_began=not cell.offset)
        ended = endings.what_became(left, self.losses, lambda: self.folder.last_lines(cell.spot))
        if ended is None:
            del self.cells[cell.job.id]
            self.kept.append(cell.job)
            _log.warning("%s is run again: %s", cell.job.id, endings.words(end))
        else:
            self._over(cell, ended)

    def _over(self, cell: _Cell, ended: Ended) -> None:
        del self.cells[cell.job.id]
        self.ready.append(Event(cell.job.id, ended))
        if self.starts.are_bad_after(cell.job, ended) and (self.cells or self.kept):
            queue.take_out([other.element.id for other in self.cells.values()])
            raise UserError(
                f"the first {BAD_STARTS} runs failed before their first step, so that the others "
                f"were taken out of the queue; mend this, and add --retry-failed: {ended.reason}"
            )

    # --- Handing over ---

    def _hand_over(self) -> None:
        """Hand over what waits, in arrays as large as SLURM takes them.

        An array limits how many of its own runs are made at a time, so that arrays share that
        number; what comes later waits here until fewer than so many are left of those before.
        """
        room = self.place.jobs
        if room and self.cells:
            room = max(0, room - len(self.cells))
            waiting, later = self.kept[:room], self.kept[room:]
        else:
            waiting, later = self.kept, []
        try:
            size = min(len(waiting), queue.most_in_an_array()) if waiting else 0
            while waiting and room != 0:
                share = max(1, room // -(-len(waiting) // size)) if room else None
                try:
                    self._array(waiting[:size], share)
                except Refused as refused:
                    size = self._smaller(size, refused)
                    continue
                waiting = waiting[size:]
                room = room - share if room and share else None
        except Unreachable as error:
            self.reached = self.reached and bool(self.cells)
            self._warn(f"SLURM does not answer ({error}); the runs are handed over later")
        except _Full as full:
            _log.warning("%d runs are handed over later: %s", len(waiting), full)
        finally:
            self.kept = [*waiting, *later]
            self.submits_at = time.monotonic() + SECONDS_BETWEEN_LOOKS if self.kept else -inf

    def _smaller(self, size: int, refused: Refused) -> int:
        """Return a smaller size of arrays.  Raises `_Full` if later, `UserError` if never."""
        if refused.is_too_many and size > 1:
            return size // 2
        if refused.is_too_many and self.cells:
            raise _Full(str(refused))
        raise UserError(
            f"SLURM refused the runs: {refused}; change the options of sbatch; "
            f"{'runs under way go on' if self.cells else 'nothing was begun'}"
        )

    def _array(self, jobs: list[Job], at_a_time: int | None) -> None:
        """Hand over an array.  Raises `Refused`, `Unreachable`."""
        batch = self.folder.next_batch()
        file = self.folder.write(batch, jobs)
        package = code.copied(self.folder.path)
        script = self.folder.script(batch, self.settings.of_runs(file, package, self.place.device))
        throttle = f"%{at_a_time}" if at_a_time else ""
        own = [
            f"--array=0-{len(jobs) - 1}{throttle}", f"--job-name={self.folder.job_name(batch)}",
queue.log_at(self.folder.path, f"{batch}-%a.log"),
        ]  # fmt: skip
        try:
            array = queue.submit(script, [*own, *self.settings.options()])
        except Refused:
            self.folder.forget(batch)
            raise
        for task, job in enumerate(jobs):
            element = Element(array, task, "PENDING", "", "", "")
            self.cells[job.id] = _Cell(job, Spot(batch, task), element)

    # --- Of a whole experiment, by whoever comes ---

    examined, send = staticmethod(errand.examined), staticmethod(errand.sent)

    @classmethod
    def stop(cls, experiment: Path, why: str) -> int:
        """Have all runs of an experiment stop after a checkpoint.

        Returns:
            Those still in the queue, so that it is called until there are none.

        Raises:
            UserError: SLURM cannot be asked.
        """
        if not (experiment / NAME).is_dir():
            return 0
        folder = Folder(experiment)
        try:
            elements = [element for element in queue.elements() if folder.spot_of(element)]
        except (Unreachable, Refused) as error:
            raise UserError(f"squeue: {error}; give the same command again") from None
        if waiting := [element.id for element in elements if element.waits]:
            queue.take_out(waiting)  # first: room falls free as others stop
        for element in elements:
            if (spot := folder.spot_of(element)) and not folder.stop_file(spot).exists():
                folder.stop(spot, why)
        return len(elements)


class _Full(Exception):
    """SLURM takes no more runs for now."""
