"""What a run leaves in its directory, and who may write it: the main process alone.

The session calls the same methods on every process.  On the main one they are those of a
`DirectoryWriter`, on the others those of a plain `Writer`, which keeps nothing.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sagan_bench.config.schema import Weights
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.progress import OnProgress
from sagan_bench.core.trees import flatten
from sagan_bench.runs import records
from sagan_bench.runs.keeping import keeps, saved_in
from sagan_bench.runs.records import BlockReading, Record, Seal, Status
from sagan_bench.runs.rows import ROWS
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session import probing
from sagan_bench.session.events import Event, SampleGrid, Scored, Stopped, Watch
from sagan_bench.session.failures import end_attempt, is_over, unstarted
from sagan_bench.session.planning import Plan
from sagan_bench.session.probes import Probes
from sagan_bench.session.trackers import RunFacts
from sagan_bench.session.trackers._telling import Trackers
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.state import TrainState

_log = logging.getLogger(__name__)


class Writer:
    """Keeps nothing: the writer of every process but the main one."""

    path: Path | None = None
    """The run's directory, where this process writes to it."""
    earlier: Record | None = None
    """The record of the attempts before, where this process goes on with it."""
    saved_step: int = 0
    """Of the newest checkpoint; 0 is none."""

    def watch(self, event: Event) -> None:
        """Show an event to whoever watches."""

    def write(self, record: Record) -> Record:
        """Store the record, and return it with the seals of what it belongs to."""
        return record

    def go_on_from(self, step: int, seals: Mapping[str, Seal]) -> list[float]:
        """Take back the rows after ``step``, and return the images/s of those before.

        ``seals`` are those of the rows in the checkpoint.
        """
        self.saved_step = step
        return []

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row of measurements."""

    def save_checkpoint(self, record: Record, state: TrainState) -> None:
        """Save the state, after what belongs to it: rows and record up to this step.

        A kill in between leaves them beyond the checkpoint before, and they are made again.
        """
        self.saved_step = state.step

    def export(self, step: int, networks: Mapping[Weights, nn.Module]) -> None:
        """Write the weights by which the run is scored, in the end or later."""

    def draw_real(self) -> None:
        """Write a grid of real images."""

    def probe(self, state: TrainState) -> tuple[BlockReading, ...]:
        """Write what the networks do now.  Returns and raises as `Probes.look`."""
        return ()

    def probe_weights(self, record: Record, device: torch.device, progress: OnProgress) -> None:
        """Store how the exported weights depend on the maps of their blocks.

        Args:
            record: as of now, with the final scores.
            device: of the run.
            progress: as that of `probing.at_the_end`.
        """

    def verify(self, check: Callable[[], None]) -> None:
        """Check that the images are those that were prepared.

        Raises:
            UserError: they are not, and no checkpoint is left to go on from.
        """

    def end_finished(self, record: Record) -> None:
        """Clear the checkpoints of a run whose record says that it is finished, or slim them."""

    def end_lost(self, reason: str) -> None:
        """Record that the attempt was lost to a failure of the machine."""

    def is_over(self) -> bool:
        """Return whether the run has a result, which nothing that fails afterwards may replace."""
        return False


class DirectoryWriter(Writer):
    """Writes to the run's directory, and shows events.

    Args:
        planned: the run.
        directory: entered, so that no other process is at it.
        watch: sees every event.
    """

    def __init__(self, planned: Plan, directory: RunDirectory, watch: Watch) -> None:
        self.planned, self.directory, self._watch = planned, directory, watch
        self.path: Path = directory.path
        self.earlier = records.read(self.path) if directory.record_file.exists() else None
        self.checkpoints = Checkpoints(directory.checkpoints)
        self.probes = Probes(planned.config, planned.store, directory)
        self.trackers: Trackers | None = None

    def watch(self, event: Event) -> None:
        """Pass the event on; tell trackers of scores on the way: final ones may be remade."""
        self._watch(event)
        if self.trackers and isinstance(event, Scored) and not event.score.final:
            self.trackers.scores([event.score])

    def write(self, record: Record) -> Record:
        """Store the record in one step, sealed."""
        sealed = record.model_copy(update={"files": self.directory.seals()})
        self.directory.write(sealed)
        return sealed

    def go_on_from(self, step: int, seals: Mapping[str, Seal]) -> list[float]:
        """Cut the rows, and tell trackers that it begins or goes on."""
        super().go_on_from(step, seals)
        self.directory.cut(step, seals)
        self._warn_of_lost_rows(step)
        self.trackers = Trackers(self.planned.config.run.trackers, self._facts(step))
        rates = (row.get("images_per_sec") for row in self.directory.rows())
        return [rate for rate in rates if isinstance(rate, float)]

    def _warn_of_lost_rows(self, step: int) -> None:
        """Say if a power cut took rows that the checkpoint has outlived."""
        every = self.planned.config.run.log_every
        before = dict(flatten(self.earlier.config)) if self.earlier else {}
        last = max((row["step"] for row in self.directory.rows()), default=0)
        if before.get("run.log_every") == every and last < step - step % every:
            _log.warning(
                "%s: rows after step %d are lost, up to step %d; the run goes on without them",
                self.directory.metrics_file,
                last,
                step,
            )

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Append to ``metrics.jsonl``, and tell trackers."""
        self.directory.log({"step": step, **row})
        if self.trackers:
            self.trackers.scalars(step, row)

    def save_checkpoint(self, record: Record, state: TrainState) -> None:
        """Put the rows on the disk, then the record, then the checkpoint."""
        self.directory.sync_rows()
        seals = self.write(record).files
        rows = {name: seals[name].model_dump() for name in ROWS if name in seals}
        self.checkpoints.save(state.step, {**state.state_dict(), "rows": rows})
        super().save_checkpoint(record, state)

    def export(self, step: int, networks: Mapping[Weights, nn.Module]) -> None:
        """Write ``weights.pt``."""
        weights: dict[str, Any] = {name: net.state_dict() for name, net in networks.items()}
        checkpoint.save(self.directory.weights, {"step": step, **weights})

    def draw_real(self) -> None:
        """Write ``samples/real.png``."""
        self.probes.draw_real()

    def probe(self, state: TrainState) -> tuple[BlockReading, ...]:
        """Write to ``samples/`` and ``diagnostics/``, and tell of the grid."""
        readings, grid = self.probes.look(state), self.probes.grid(state.step)
        self.watch(SampleGrid(grid))
        if self.trackers:
            self.trackers.pictures(state.step, grid)
        return readings

    def probe_weights(self, record: Record, device: torch.device, progress: OnProgress) -> None:
        """Write ``probe.json``; where that fails, say so: the run is none the less."""
        planned = self.planned
        try:
            probing.at_the_end(
                planned.config, self.directory, record, planned.store, device, progress
            )
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001  # a block of one's own may raise anything
            what = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            _log.warning("%s is not probed: %s%s", self.path, what, error)

    def verify(self, check: Callable[[], None]) -> None:
        """Clear the checkpoints if the images are others."""
        try:
            check()
        except MachineError:  # they could not be read just now
            raise
        except UserError:
            self.checkpoints.clear()
            raise

    def end_finished(self, record: Record) -> None:
        """Clear the checkpoints, or keep what the run may be trained further from."""
        saved = saved_in(self.path)
        if record.status != Status.FINISHED or not saved:
            return
        if not keeps(self.planned.config.run.keep_training_state, saved[-1].stat().st_size):
            self.checkpoints.clear()
            return
        try:
            self.checkpoints.slim()
        except (OSError, UserError) as error:  # the run is finished none the less
            _log.warning("%s: its checkpoint stays as it is: %s", self.path, error)

    def end_lost(self, reason: str) -> None:
        """Record it as `end_attempt` does."""
        with suppress(OSError, UserError):  # where that cannot be written, it reads as killed
            blank = unstarted(self.planned.config, self.planned.digest, self.path)
            end_attempt(self.directory, blank, reason, lost=True)

    def is_over(self) -> bool:
        """Return whether the record on the disk is of a run that is over."""
        return is_over(self.directory)

    def _facts(self, step: int) -> RunFacts:
        """Return what trackers know of the run, which has ``step`` steps behind it."""
        config = self.planned.config
        return RunFacts(
            name=self.path.resolve().name,
            folder=self.path,
            variant=config.variant,
            seed=config.seed,
            digest=self.planned.digest,
            step=step,
            config=config.model_dump(mode="json"),
        )

    def close(self) -> None:
        """Tell trackers the final scores, now that they are recorded, and how the attempt ended."""
        if not self.trackers:
            return
        record, ended = None, Status.INTERRUPTED
        with suppress(OSError, UserError):  # it cannot be read just now
            record = records.read(self.path)
        if record and record.status != Status.RUNNING:
            ended = record.status
        if record and ended == Status.FINISHED:
            finals = [score for score in record.scores if score.final]
            self.trackers.scores(score for score in finals if score.step == record.step)
        self.trackers.end(ended)


@contextmanager
def opened(
    planned: Plan, watch: Watch, context: DistributedContext, *, fresh: bool
) -> Iterator[Writer]:
    """Yield the writer of this process, on the main one with the run's directory locked.

    Raises:
        UserError: as `RunDirectory`.
    """
    if not context.is_main_process:
        yield Writer()
        return
    dumped = planned.config.model_dump(mode="json")
    with RunDirectory(planned.path, digest=planned.digest, config=dumped, fresh=fresh) as directory:
        writer = DirectoryWriter(planned, directory, watch)
        try:
            yield writer
        finally:
            writer.close()
