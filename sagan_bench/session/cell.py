"""One attempt at a run, within its locked directory: train, sample, checkpoint, score, record."""

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import cpu, precision, system
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.files import atomic_file
from sagan_bench.core.trees import flatten
from sagan_bench.data.pixels import normalise
from sagan_bench.data.store import Store
from sagan_bench.evaluation.extractors import Images
from sagan_bench.evaluation.metrics import NonFiniteImages, Sample, sample_images
from sagan_bench.evaluation.scoring import Scorer, Weights
from sagan_bench.models.build import Layout
from sagan_bench.runs import records
from sagan_bench.runs.records import (
    Attempt,
    BlockReading,
    Cost,
    DataSummary,
    Record,
    Seal,
    Status,
)
from sagan_bench.runs.run_directory import ROWS, RunDirectory
from sagan_bench.session.events import Progress, Scored, Stop, Stopped, Watch
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.diagnostics import diagnose
from sagan_bench.training.draws import dtype_of
from sagan_bench.training.generation import Labels, balanced, in_rows, noise, sampler, standing
from sagan_bench.training.loop import Diverged, Step, TrainState, train
from sagan_bench.training.timing import out_of_memory

_log = logging.getLogger(__name__)

GRID_IMAGES = 64
GRID_ROW = 8
GRID_CLASSES = 10
"""Rows of a grid at most where there are classes, each of one class."""
DIAGNOSED = 16
"""Images by which blocks of attention are looked at."""
PICTURED = 4
"""Of these, whose maps are kept."""
GRID_BATCHES = 8
"""Batches of standing statistics for a sample grid; fewer than for a score, so that looking often
costs little."""

LONG_LOOK = 5_000
"""Images that a look on the way may still have to score when the run is asked to stop."""


class Cell:
    """One attempt at a run.

    Args:
        config: resolved.
        layout: of its networks.
        store: the images.
        directory: entered, so that no other process is at it.
        earlier: the record of the attempts before; None if this is the first.
        data_sec: what preparing the data took.
        watch: sees every event.
        stop: asked after each step.
        context: of the processes that train this run, the leader.
    """

    def __init__(
        self,
        config: RunConfig,
        layout: Layout,
        store: Store,
        directory: RunDirectory,
        earlier: Record | None,
        *,
        data_sec: float,
        watch: Watch,
        stop: Stop,
        context: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        self.config, self.layout = config, layout
        self.store, self.directory = store, directory
        self.context = context
        self.earlier, self.data_sec = earlier, data_sec
        self.watch, self.stop = watch, stop
        self.device = system.open_device(config.run.device)
        self.threads = context.broadcast(use_threads(config, earlier, context))
        precision.use(config.training.precision)
        system.forget_peak_memory(self.device)
        self.checkpoints = Checkpoints(directory.checkpoints)
        self.began = datetime.now(UTC)
        self.step = self.from_step = earlier.step if earlier else 0
        self.trained_sec = self.scored_sec = 0.0
        self.scores = list(earlier.scores if earlier else ())
        self.blocks = earlier.blocks if earlier else ()
        self.rates: list[float] = []
        self.scorer: Scorer | None = None
        self.environment = records.environment(
            str(self.device),
            device_name=system.device_name(self.device),
            threads=self.threads,
            cuda=torch.version.cuda,
        )

    def run(self) -> Record:
        """Train, score and return the record, of status ``finished`` or ``diverged``."""
        with system.memory_for("loading the networks", self.device):
            self.state = self._restored()
        self.write("running")
        save_grid(self.directory.samples / "real.png", self._real_grid())
        try:
            if diverged := self._train():
                return self.write("diverged", f"step {diverged.step}: {diverged.reason}")
            self._verify(self.store.verification.finish)
            with system.memory_for("scoring", self.device):
                self._score_final()
        except NonFiniteImages as error:
            return self.write("diverged", f"step {self.step}: {error}")
        except system.OutOfMemory as error:
            # No checkpoint here: what this step was to be looked at by would never be made.
            kept = self.checkpoints.newest_step() or 0
            raise MachineError(f"{error}; the same command goes on from step {kept}") from error
        record = self.write("finished")
        if not self.config.run.keep_training_state:
            self.checkpoints.clear()  # only now: a kill before the record would lose the run
        return record

    def _restored(self) -> TrainState:
        """Return the state of the newest checkpoint, with all that came after it taken back.

        Raises:
            UserError: the run is already beyond the steps asked for.
        """
        state, seals = TrainState(self.config, self.device, self.context), dict[str, Seal]()
        if found := self.checkpoints.latest():
            rows = found[1].pop("rows", {})  # not before they were stored
            seals = {name: Seal.model_validate(one) for name, one in rows.items()}
            state.load_state_dict(found[1])
        self.context.broadcast(state.step)
        if state.step > self.config.run.steps:
            raise UserError(
                f"{self.directory.path} is already at step {state.step}, beyond the "
                f"{self.config.run.steps} asked for; choose another --name or --out"
            )
        self.directory.cut(state.step, seals)
        self._warn_of_lost_rows(state.step)
        rates = (row.get("images_per_sec") for row in self.directory.rows())
        self.rates = [rate for rate in rates if isinstance(rate, float)]
        self.scores = [score for score in self.scores if score.step <= state.step]
        self.blocks = tuple(block for block in self.blocks if block.step <= state.step)
        self.step = self.from_step = state.step
        return state

    def _warn_of_lost_rows(self, step: int) -> None:
        """Say if a power cut took rows that the checkpoint has outlived."""
        every = self.config.run.log_every
        before = dict(flatten(self.earlier.config)) if self.earlier else {}
        there = max((row["step"] for row in self.directory.rows()), default=0)
        if before.get("run.log_every") == every and there < step - step % every:
            _log.warning(
                "%s: rows after step %d are lost, up to step %d; the run goes on without them",
                self.directory.metrics_file,
                there,
                step,
            )

    # --- Training ---

    def _train(self) -> Diverged | None:
        rate = self.config.run
        logs = _TensorBoard(self.directory.path, self.state.step) if rate.tensorboard else None
        events = train(self.config, self.state, self.store)
        while True:
            began = time.perf_counter()
            event = self._next(events)
            self.trained_sec += time.perf_counter() - began
            if event is None:
                return None
            self.step = event.step
            self.watch(event)
            if isinstance(event, Diverged):
                return event
            if event.row is not None:
                self.rates.append(event.row["images_per_sec"])
                row = event.row | {"peak_memory_gib": system.peak_memory_gib(self.device)}
                self.directory.log({"step": event.step, **row})
                if logs:
                    logs.log(event.step, row)
            self._after_step(event.step)

    def _next(self, events: Iterator[Step | Diverged]) -> Step | Diverged | None:
        try:
            return next(events, None)
        except (RuntimeError, MemoryError) as error:
            if not system.is_out_of_memory(error):
                raise
        # Only here is what the error's frames held free again.
        raise out_of_memory(self.config, self.state)

    def _verify(self, check: Callable[[], None]) -> None:
        """Check that the images are those that were prepared.

        Raises:
            UserError: they are not, and no checkpoint is left to go on from.
        """
        try:
            check()
        except MachineError:  # they could not be read just now
            raise
        except UserError:
            self.checkpoints.clear()
            raise

    def _after_step(self, step: int) -> None:
        self._verify(self.store.verification.check)
        rate, last = self.config.run, step == self.config.run.steps
        if step % rate.sample_every == 0 or last:
            with system.memory_for("making sample images", self.device):
                self._sample(step)
        if scores_on_the_way(self.config, step):
            with system.memory_for("scoring", self.device):
                standing_ema = self._standing(self.state.ema)
                self._score({"ema": standing_ema}, n_fake=rate.eval_images, final=False)
        if step % rate.checkpoint_every == 0 or last:
            self._checkpoint()
        self._obey(self.context.any_rank(self.stop()))

    def _checkpoint(self) -> None:
        """Save the state, after what belongs to it: rows, scores and readings up to this step.

        A kill in between leaves them beyond the checkpoint before, and they are made again.
        """
        if self.checkpoints.newest_step() != self.step:
            self.directory.sync_rows()
            seals = self.write("running").files
            rows = {name: seals[name].model_dump() for name in ROWS if name in seals}
            self.checkpoints.save(self.step, {**self.state.state_dict(), "rows": rows})

    def _obey(self, reason: str | None) -> None:
        """Raise `Stopped`, with a checkpoint taken, if the run was asked to stop."""
        if reason:
            self._checkpoint()
            self.write("interrupted", reason)
            raise Stopped(reason, self.directory.path)

    def _sample(self, step: int) -> None:
        generator = self._standing(self.state.ema, batches=GRID_BATCHES)
        labels = grid_labels(self.config.model.classes)
        count = GRID_IMAGES if labels is None else len(labels)
        sample = self._sampler(generator, in_rows(labels) if labels is not None else None)
        images = sample_images(sample, count, self.config.seed, GRID_IMAGES)
        save_grid(self.directory.samples / f"step-{step:08d}.png", images)
        self._diagnose(step, generator, images)

    def _real_grid(self) -> Images:
        """Return real images for a grid: the first, or the first of each class that has a row."""
        train, labels = self.store.train, grid_labels(self.config.model.classes)
        if labels is None:
            return train.images[:GRID_IMAGES]
        rows = [
            np.flatnonzero(train.labels == label)[:GRID_ROW]
            for label in labels[::GRID_ROW].tolist()
        ]
        blank = np.full((GRID_ROW, *train.images.shape[1:]), 255, np.uint8)
        return np.concatenate(
            [np.concatenate([train.images[row], blank])[:GRID_ROW] for row in rows]
        )

    def _diagnose(self, step: int, generator: nn.Module, images: Images) -> None:
        """Look at the blocks of both networks: readings to log and record, maps to a file.

        The maps are those of the first samples in the grid, and of the first real images.
        """
        config, train = self.config, self.store.train
        truncation = config.evaluation.truncation
        z = noise(config.seed, 0, DIAGNOSED, config.model.z_dim, truncation)
        z = system.sent(z, self.device)
        real = torch.from_numpy(train.images[:DIAGNOSED].copy())
        pixels = normalise(system.sent(real, self.device)).to(dtype_of(config))
        fake_labels, real_labels = [], []
        if (labels := grid_labels(config.model.classes)) is not None:
            fake_labels = [system.sent(labels[:DIAGNOSED], self.device)]
            of_real = torch.from_numpy(train.labels[:DIAGNOSED].copy())
            real_labels = [system.sent(of_real, self.device)]
        looks = {
            "generator": diagnose(generator, z, *fake_labels, pictured=PICTURED),
            "discriminator": diagnose(
                self.state.discriminator, pixels, *real_labels, pictured=PICTURED
            ),
        }
        found = {
            (net, name): block for net, blocks in looks.items() for name, block in blocks.items()
        }
        if not found:
            return
        self.blocks = tuple(
            BlockReading(network=network, name=name, step=step, **block.figures())
            for (network, name), block in found.items()
        )
        figures = {f"{net}.{name}": block.figures() for (net, name), block in found.items()}
        self.directory.log_diagnostics({"step": step, **figures})
        maps = {f"{net}.{name}": block.maps for (net, name), block in found.items() if block.maps}
        arrays: dict[str, Any] = {
            f"beta.{name}": one.beta.astype(np.float16) for name, one in maps.items()
        }
        arrays |= {f"queries.{name}": np.array(one.queries) for name, one in maps.items()}
        arrays["generator"] = np.asarray(images[:PICTURED])
        arrays["discriminator"] = real[:PICTURED].numpy()
        self.directory.diagnostics.mkdir(exist_ok=True)
        with atomic_file(self.directory.diagnostics / f"step-{step:08d}.npz") as file:
            np.savez_compressed(file, **arrays)

    def _sampler(self, generator: nn.Module, labels: Labels | None = None) -> Sample:
        """Return the sampler of a standing generator; by default of balanced classes."""
        model, truncation = self.config.model, self.config.evaluation.truncation
        labels = labels or balanced(model.classes)
        return sampler(generator, model.z_dim, labels=labels, truncation=truncation)

    def _standing(self, generator: nn.Module, batches: int | None = None) -> nn.Module:
        return standing(self.config, generator, batches or self.config.evaluation.bn_batches)

    # --- Scores ---

    def _score_final(self) -> None:
        self.scores = [one for one in self.scores if not (one.final and one.step == self.step)]
        kept: dict[Weights, nn.Module] = {
            "ema": self._standing(self.state.ema),
            "raw": self._standing(self.state.generator),
        }
        exported: dict[str, Any] = {name: net.state_dict() for name, net in kept.items()}
        checkpoint.save(self.directory.weights, {"step": self.step, **exported})
        self._score(kept, n_fake=self.config.evaluation.n_fake, final=True)

    def _score(self, kept: dict[Weights, nn.Module], *, n_fake: int, final: bool) -> None:
        began = time.perf_counter()
        if self.scorer is None:
            self.scorer = Scorer(self.config, self.store, self.device, self._scoring, self.context)
        samples = {weights: self._sampler(network) for weights, network in kept.items()}
        try:
            for score in self.scorer.scores(samples, step=self.step, n_fake=n_fake, final=final):
                self.scores.append(score)
                self.watch(Scored(score))
        finally:
            self.scored_sec += time.perf_counter() - began

    def _scoring(self, done: int, total: int) -> None:
        """Follow the scoring, and break off what would last: the last of all, or many images.

        A look on the way is made again from the checkpoint before it.
        """
        self.watch(Progress("score", done, total))
        if self.step == self.config.run.steps:
            self._obey(self.stop())
        elif total - done > LONG_LOOK and self.context.world_size == 1 and (reason := self.stop()):
            self.write("interrupted", reason)
            raise Stopped(reason, self.directory.path)

    # --- The record ---

    def write(self, status: Status, reason: str | None = None) -> Record:
        """Store and return the record as of now."""
        config, step = self.config, self.step
        before = self.earlier.attempts if self.earlier else ()
        over = status != "running"
        attempt = Attempt(
            started=self.began,
            ended=datetime.now(UTC) if over else None,
            from_step=self.from_step,
            to_step=step if over else None,
            outcome=status if over else None,
            threads=self.threads,
            processes=self.context.world_size,
        )
        manifest = self.store.manifest
        record = Record(
            run=self.directory.path.resolve().name,
            name=config.name,
            variant=config.variant,
            seed=config.seed,
            status=status,
            reason=reason,
            step=step,
            steps=config.run.steps,
            config=config.model_dump(mode="json"),
            config_digest=config.digest(manifest.fingerprint()),
            data=DataSummary(
                fingerprint=manifest.fingerprint(), manifest=manifest.model_dump(mode="json")
            ),
            scores=tuple(self.scores),
            blocks=self.blocks,
            cost=self._cost(),
            environment=self.environment,
            attempts=(*before, attempt),
            files=self.directory.seals(),
        )
        self.directory.write(record)
        return record

    def _cost(self) -> Cost:
        earlier = self.earlier.cost if self.earlier else Cost()
        peak = system.peak_memory_gib(self.device)
        return Cost(
            train_sec=(earlier.train_sec or 0) + self.trained_sec,
            data_sec=(earlier.data_sec or 0) + self.data_sec,
            score_sec=(earlier.score_sec or 0) + self.scored_sec,
            images_per_sec=statistics.median(self.rates) if self.rates else None,
            peak_memory_gib=max(peak, earlier.peak_memory_gib or 0),
            parameters_g=self.layout.parameters("generator"),
            parameters_d=self.layout.parameters("discriminator"),
            flops_per_step=self.layout.flops_per_step,
        )


class _TensorBoard:
    """The rows of metrics.jsonl once more, for TensorBoard."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard: TensorBoard is missing; pip install 'sagan-bench[tensorboard]'"
            ) from error
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, row: dict[str, Any]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)


def save_grid(path: Path, images: Images) -> None:
    """Write uint8 images (N, 3, S, S) as one PNG, eight in a row."""
    grid = make_grid(torch.as_tensor(np.asarray(images).copy()), nrow=8, padding=2, pad_value=255)
    with atomic_file(path) as file:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(file, "PNG")


def grid_labels(classes: int) -> Tensor | None:
    """Return the classes of a grid's images, each `GRID_ROW` times; None if there are no classes.

    Of many classes, `GRID_CLASSES` at equal distances are shown.
    """
    if not classes:
        return None
    rows = min(classes, GRID_CLASSES)
    return (torch.arange(rows) * classes // rows).repeat_interleave(GRID_ROW)


def scores_on_the_way(config: RunConfig, step: int) -> bool:
    """Return whether the averaged weights are scored after a step that is not the last."""
    return bool(config.run.eval_every) and step % (config.run.eval_every or 1) == 0


def use_threads(
    config: RunConfig, earlier: Record | None, context: DistributedContext = SINGLE_PROCESS
) -> int:
    """Set the CPU threads: as asked, else as before the interruption, else one a core.

    Their number changes the last bits of sums, so a run resumed by as many processes keeps it.
    Processes on one machine share its cores.
    """
    last = earlier.attempts[-1] if earlier and earlier.attempts else None
    before = last.threads if last and (last.processes or 1) == context.world_size else None
    threads = config.run.threads or before or max(1, cpu.cores() // context.local_world_size)
    torch.set_num_threads(threads)
    return threads
