"""The files through which an experiment and its runs in SLURM know of each other."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.files import atomic_write
from sagan_bench.execution import messages
from sagan_bench.execution.engine import Job
from sagan_bench.execution.engines._keys import key_of
from sagan_bench.execution.engines._slurm.queue import Element
from sagan_bench.runs import log

NAME = ".slurm"
MOST_READ = 2**20
"""Bytes of events that are read of a run at a time."""


class Spot(NamedTuple):
    """A run's place: which array that was handed over, and where in it."""

    batch: int
    task: int


class Folder:
    """The folder ``.slurm`` of an experiment.

    ``key`` (part of the name of its jobs), ``N.jobs`` and ``N.sh`` of each array that was handed
    over, and of each run of it ``N-T.events``, ``N-T.log`` and, where it is to stop, ``N-T.stop``.

    Args:
        experiment: its folder.
    """

    def __init__(self, experiment: Path) -> None:
        self.path = experiment.absolute() / NAME
        self._keys: dict[int, list[tuple[str, str]]] = {}

    @cached_property
    def key(self) -> str:
        """Return what is in the names of its jobs; a copy of the folder elsewhere has another."""
        return key_of(self.path)

    # --- Arrays ---

    def job_name(self, batch: int) -> str:
        """Return what the jobs of an array are called."""
        return f"sagan-{self.key}-{batch}"

    def spot_of(self, element: Element) -> Spot | None:
        """Return the place of a run that is in the queue; None if it is of another experiment."""
        begin, _, batch = element.name.rpartition("-")
        is_ours = begin == f"sagan-{self.key}" and batch.isdecimal()
        return Spot(int(batch), element.task) if is_ours else None

    def next_batch(self) -> int:
        """Return the number of an array that there was never."""
        there = (path.stem for path in self.path.glob("*.jobs"))
        return max((int(stem) for stem in there if stem.isdecimal()), default=0) + 1

    def write(self, batch: int, jobs: Sequence[Job]) -> Path:
        """Store what the runs of an array are, and return the file."""
        self.path.mkdir(parents=True, exist_ok=True)
        lines = [messages.handed(job, self.path) for job in jobs]
        file = self.path / f"{batch}.jobs"
        atomic_write(file, "".join(lines).encode())
        return file

    def script(self, batch: int, text: str) -> Path:
        """Store the script of an array, and return the file."""
        file = self.path / f"{batch}.sh"
        atomic_write(file, text.encode())
        return file

    def forget(self, batch: int) -> None:
        """Remove the files of an array that was refused."""
        for end in ("jobs", "sh"):
            (self.path / f"{batch}.{end}").unlink(missing_ok=True)

    def key_at(self, spot: Spot) -> tuple[str, str] | None:
        """Return id and digest of the run at a place; None if that is not known."""
        if spot.batch not in self._keys:
            self._keys[spot.batch] = []
            with suppress(OSError, ValueError):
                text = (self.path / f"{spot.batch}.jobs").read_text()
                self._keys[spot.batch] = [messages.key_in(line) for line in text.splitlines()]
        keys = self._keys[spot.batch]
        return keys[spot.task] if spot.task < len(keys) else None

    # --- Runs ---

    def events(self, spot: Spot) -> Path:
        """Return the file to which a run says what happens."""
        return self.path / f"{spot.batch}-{spot.task}.events"

    def stop_file(self, spot: Spot) -> Path:
        """Return the file in which a run is told why to stop."""
        return self.path / f"{spot.batch}-{spot.task}.stop"

    def stop(self, spot: Spot, why: str) -> None:
        """Tell a run to stop."""
        atomic_write(self.stop_file(spot), why.encode())

    def news(self, spot: Spot, offset: int) -> tuple[str, int]:
        """Return the whole lines of events from an offset on, and the offset behind them."""
        try:
            with self.events(spot).open("rb") as file:
                file.seek(offset)
                content = file.read(MOST_READ)
        except FileNotFoundError:
            return "", offset
        whole = content[: content.rfind(b"\n") + 1]
        return whole.decode(errors="replace"), offset + len(whole)

    def last_lines(self, spot: Spot) -> str:
        """Return the end of what the job of a run printed, before the run began above all."""
        return log.last_lines(self.path / f"{spot.batch}-{spot.task}.log")
