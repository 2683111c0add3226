"""One run, one cell of any grid: data, training, scores and the record of it all."""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.utils import make_grid

from sagan_bench import host, records
from sagan_bench.config import RunConfig
from sagan_bench.data.sources import DataSpec
from sagan_bench.data.store import Store, known_fingerprint, prepare
from sagan_bench.errors import UserError
from sagan_bench.evaluation.extractors import Images
from sagan_bench.evaluation.metrics import NonFiniteImages, Sample, sample_images
from sagan_bench.evaluation.scoring import WEIGHTS, Scorer, Weights
from sagan_bench.models.build import build, flops_per_step, layers, parameters
from sagan_bench.records import Attempt, Cost, DataSummary, Record, Score, Status
from sagan_bench.run_directory import RunDirectory, status_now
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.generation import sampler, standing
from sagan_bench.training.loop import Diverged, Step, TrainState, train

GRID_IMAGES = 64
GRID_BATCHES = 8
"""Batches of standing statistics for a sample grid; fewer than for a score, so that looking often
costs little."""

_log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a phase outside training has come."""

    phase: Literal["data", "score"]
    done: int
    total: int


class Scored(NamedTuple):
    """One sample set has been scored."""

    score: Score


Watch = Callable[[Progress | Step | Diverged | Scored], None]
"""Sees every event of a run."""
Stop = Callable[[], str | None]
"""Returns why the run should stop now, or None."""


class Stopped(Exception):
    """The run was asked to stop; what it had done is in its directory."""

    def __init__(self, reason: str, path: Path | None) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(frozen=True)
class Plan:
    """What a run will be called and where it will be, known before it starts."""

    config: RunConfig
    store: Store
    digest: str
    path: Path


def data_spec(config: RunConfig) -> DataSpec:
    """Return what `prepare` needs to know of a configuration."""
    return DataSpec(**config.data.model_dump(exclude={"flip"}))


def run_path(config: RunConfig, digest: str | None, out: Path | None) -> Path:
    """Return ``out``, or else ``runs/<name>-s<seed>-<digest>``."""
    return out or Path("runs") / f"{config.name}-s{config.seed}-{digest}"


def plan(
    config: RunConfig, out: Path | None = None, *, watch: Watch, stop: Stop = lambda: None
) -> Plan:
    """Check the networks, prepare the data and name the run.

    Raises:
        UserError: an impossible network, or data that cannot be used.
        Stopped: ``stop`` asked for it while data was prepared.
    """
    layers(config)  # refuses an impossible network before any data is made

    def progress(done: int, total: int) -> None:
        watch(Progress("data", done, total))
        if reason := stop():
            raise Stopped(reason, None)

    store = prepare(data_spec(config), progress=progress)
    store.batch(config.seed, 0, config.training.batch_size)  # refuses fewer images than a batch
    digest = config.digest(store.manifest.fingerprint())
    return Plan(config, store, digest, run_path(config, digest, out))


def dry_run(config: RunConfig, out: Path | None = None) -> dict[str, Any]:
    """Return what `run` would do, without touching anything.

    The digest, and with it the folder, is null while the data's content is unknown.

    Raises:
        UserError: an impossible network, or data that is not there.
    """
    table = layers(config)
    fingerprint = known_fingerprint(data_spec(config))
    digest = config.digest(fingerprint) if fingerprint else None
    path = run_path(config, digest, out) if digest or out else None
    earlier = records.read(path) if path and (path / records.RECORD).exists() else None
    return {
        "run": str(path) if path else None,
        "digest": digest,
        "state": status_now(path) if path and earlier else "new",
        "step": earlier.step if earlier else 0,
        "steps": config.run.steps,
        "data": "known" if fingerprint else "to be prepared",
        "device": str(host.device(config.run.device)),
        "precision": config.training.precision,
        "parameters": sum(layer.parameters for layer in table),
        "flops_per_step": flops_per_step(config),
    }


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    fresh: bool = False,
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
) -> Record:
    """Train, score and record one configuration; go on where an earlier attempt was cut off.

    Args:
        config: resolved, without ``auto``.
        out: the run's directory; by default `run_path`'s.
        fresh: move what is there aside and start over.
        watch: sees every event.
        stop: asked after each step; a reason makes the run checkpoint and raise `Stopped`.

    Returns:
        The record, of status ``finished`` or ``diverged``; the one on disk if nothing was missing.

    Raises:
        UserError: a configuration, data or directory that cannot be used.
        Stopped: ``stop`` asked for it.
    """
    began = time.perf_counter()
    planned = plan(config, out, watch=watch, stop=stop)
    data_sec = time.perf_counter() - began
    dumped = config.model_dump(mode="json")
    with RunDirectory(planned.path, digest=planned.digest, config=dumped, fresh=fresh) as directory:
        earlier = records.read(planned.path) if directory.record_file.exists() else None
        if earlier is not None and _is_complete(earlier, config.run.steps, planned.path):
            return earlier
        cell = _Cell(planned, directory, earlier, data_sec, watch, stop)
        try:
            return cell.run()
        except Exception as error:
            if not isinstance(error, Stopped):
                cell.write("failed", f"{type(error).__name__}: {error}")
            raise


def _is_complete(earlier: Record, steps: int, path: Path) -> bool:
    """Return whether nothing is left to do.

    Raises:
        UserError: the run went further than asked, or cannot be extended.
    """
    if earlier.status == "diverged":
        return True
    if earlier.status != "finished" or earlier.step == steps:
        return earlier.status == "finished"
    if earlier.step > steps:
        raise UserError(
            f"{path} is finished at step {earlier.step}, and {steps} were asked for; choose "
            "another --name or --out for a shorter run"
        )
    if Checkpoints(path / "checkpoints").latest() is None:
        raise UserError(
            f"{path} is finished at step {earlier.step} and kept no optimizer state, so it cannot "
            f"go on to {steps}; start over with --no-resume, and add "
            "--set run.keep_training_state=true to a run that may be extended"
        )
    return False


class _Cell:
    """One attempt at a run, within its locked directory."""

    def __init__(
        self,
        planned: Plan,
        directory: RunDirectory,
        earlier: Record | None,
        data_sec: float,
        watch: Watch,
        stop: Stop,
    ) -> None:
        self.config, self.store = planned.config, planned.store
        self.directory, self.watch, self.stop = directory, watch, stop
        self.device = host.device(self.config.run.device)
        self.threads = _use_threads(self.config, earlier)
        _use_precision(self.config)
        self.checkpoints = Checkpoints(directory.checkpoints)
        self.state = self._restored()
        self.began = datetime.now(UTC)
        self.from_step = self.state.step
        self.trained_sec = 0.0
        self.scored_sec = 0.0
        self.scores: list[Score] = [
            score for score in (earlier.scores if earlier else ()) if score.step <= self.from_step
        ]
        self.scorer: Scorer | None = None
        self.planned, self.earlier, self.data_sec = planned, earlier, data_sec

    def run(self) -> Record:
        """Train, score and return the record, of status ``finished`` or ``diverged``."""
        self.write("running")
        _save_grid(self.directory.samples / "real.png", self.store.train.images[:GRID_IMAGES])
        try:
            if diverged := self._train():
                return self.write("diverged", f"step {diverged.step}: {diverged.reason}")
            self._score_final()
        except NonFiniteImages as error:
            return self.write("diverged", f"step {self.state.step}: {error}")
        record = self.write("finished")
        if not self.config.run.keep_training_state:
            self.checkpoints.clear()  # only now: a kill before the record would lose the run
        return record

    def _restored(self) -> TrainState:
        state = TrainState(self.config, self.device)
        if found := self.checkpoints.latest():
            state.load_state_dict(found[1])
        self.directory.cut(state.step)
        return state

    # --- Training ---

    def _train(self) -> Diverged | None:
        rate = self.config.run
        logs = _TensorBoard(self.directory.path, self.state.step) if rate.tensorboard else None
        events = train(self.config, self.state, self.store)
        while True:
            began = time.perf_counter()
            event = next(events, None)
            self.trained_sec += time.perf_counter() - began
            if event is None:
                return None
            self.watch(event)
            if isinstance(event, Diverged):
                return event
            if event.row is not None:
                self.directory.log({"step": event.step, **event.row})
                if logs:
                    logs.log(event.step, event.row)
            self._after_step(event.step)

    def _after_step(self, step: int) -> None:
        rate, last = self.config.run, step == self.config.run.steps
        if step % rate.sample_every == 0 or last:
            self._sample(step)
        if rate.eval_every and step % rate.eval_every == 0 and not last:
            standing_ema = self._standing(self.state.ema)
            self._score({"ema": standing_ema}, n_fake=rate.eval_images, final=False)
        if step % rate.checkpoint_every == 0 or last:
            self._checkpoint()
        self._obey()

    def _checkpoint(self) -> None:
        if self.checkpoints.newest_step() != self.state.step:
            self.checkpoints.save(self.state.step, self.state.state_dict())
            self.write("running")

    def _obey(self) -> None:
        """Raise `Stopped`, with a checkpoint taken, if the run was asked to stop."""
        if reason := self.stop():
            self._checkpoint()
            self.write("interrupted", reason)
            raise Stopped(reason, self.directory.path)

    def _sample(self, step: int) -> None:
        sample = self._sampler(self._standing(self.state.ema, batches=GRID_BATCHES))
        images = sample_images(sample, GRID_IMAGES, self.config.seed, GRID_IMAGES)
        _save_grid(self.directory.samples / f"step-{step:08d}.png", images)

    def _sampler(self, generator: nn.Module) -> Sample:
        return sampler(generator, self.config.model.z_dim)

    def _standing(self, generator: nn.Module, batches: int | None = None) -> nn.Module:
        return standing(
            generator,
            z_dim=self.config.model.z_dim,
            seed=self.config.seed,
            batches=batches or self.config.evaluation.bn_batches,
            batch_size=self.config.training.batch_size,
        )

    # --- Scores ---

    def _score_final(self) -> None:
        self.scores = [score for score in self.scores if not score.final]
        kept: dict[Weights, nn.Module] = {
            "ema": self._standing(self.state.ema),
            "raw": self._standing(self.state.generator),
        }
        exported: dict[str, Any] = {name: net.state_dict() for name, net in kept.items()}
        checkpoint.save(self.directory.weights, {"step": self.state.step, **exported})
        self._score(kept, n_fake=self.config.evaluation.n_fake, final=True)

    def _score(self, kept: dict[Weights, nn.Module], *, n_fake: int, final: bool) -> None:
        began = time.perf_counter()
        if self.scorer is None:
            self.scorer = Scorer(self.config, self.store, self.device, self._scoring)
        samples = {weights: self._sampler(network) for weights, network in kept.items()}
        for score in self.scorer.scores(samples, step=self.state.step, n_fake=n_fake, final=final):
            self.scores.append(score)
            self.watch(Scored(score))
        self.scored_sec += time.perf_counter() - began

    def _scoring(self, done: int, total: int) -> None:
        self.watch(Progress("score", done, total))
        self._obey()

    # --- The record ---

    def write(self, status: Status, reason: str | None = None) -> Record:
        """Store and return the record as of now."""
        config, step = self.config, self.state.step
        before = self.earlier.attempts if self.earlier else ()
        over = status != "running"
        attempt = Attempt(
            started=self.began,
            ended=datetime.now(UTC) if over else None,
            from_step=self.from_step,
            to_step=step if over else None,
            outcome=status if over else None,
            threads=self.threads,
        )
        manifest = self.store.manifest
        record = Record(
            run=self.directory.path.name,
            name=config.name,
            variant=config.variant,
            seed=config.seed,
            status=status,
            reason=reason,
            step=step,
            steps=config.run.steps,
            config=config.model_dump(mode="json"),
            config_digest=self.planned.digest,
            data=DataSummary(
                fingerprint=manifest.fingerprint(), manifest=manifest.model_dump(mode="json")
            ),
            scores=tuple(self.scores),
            cost=self._cost(),
            environment=records.environment(
                str(self.device),
                device_name=host.device_name(self.device),
                threads=self.threads,
                cuda=torch.version.cuda,
            ),
            attempts=(*before, attempt),
        )
        self.directory.write(record)
        return record

    def _cost(self) -> Cost:
        earlier = self.earlier.cost if self.earlier else Cost()
        rates = [row["images_per_sec"] for row in self.directory.rows()]
        return Cost(
            train_sec=(earlier.train_sec or 0) + self.trained_sec,
            data_sec=(earlier.data_sec or 0) + self.data_sec,
            score_sec=(earlier.score_sec or 0) + self.scored_sec,
            images_per_sec=statistics.median(rates) if rates else None,
            peak_memory_gib=host.peak_memory_gib(self.device),
            parameters_g=parameters(self.state.generator),
            parameters_d=parameters(self.state.discriminator),
            flops_per_step=flops_per_step(self.config),
        )


def evaluate(
    path: Path,
    config: RunConfig,
    *,
    device: str = "auto",
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
) -> Record:
    """Score a finished run under ``config.evaluation`` and add the scores to its record.

    A score of the same protocol, weights and seed replaces the one before.  The weights are those
    of the run's end, with the statistics they were exported with.

    Raises:
        UserError: the run has no exported weights, or its data cannot be had or has changed.
        Stopped: ``stop`` asked for it; the scores made so far are kept.
    """
    record = records.read(path)
    chosen = host.device(device)
    _use_precision(config)

    def progress(phase: Literal["data", "score"], done: int, total: int) -> None:
        watch(Progress(phase, done, total))
        if reason := stop():
            raise Stopped(reason, path)

    store = prepare(data_spec(config), progress=partial(progress, "data"))
    if record.data and store.manifest.fingerprint() != record.data.fingerprint:
        raise UserError(
            f"the images at {config.data.source} are not those that {path} was trained on"
        )
    with RunDirectory(path, digest=record.config_digest, config=record.config) as directory:
        record = records.read(path)
        if not directory.weights.exists():
            raise UserError(
                f"{path} has no exported weights; finish the run first: it is {record.status}"
            )
        exported = checkpoint.load(directory.weights)
        scorer = Scorer(config, store, chosen, partial(progress, "score"))
        samples: dict[Weights, Sample] = {}
        for weights in WEIGHTS:
            generator = build(config).generator
            generator.load_state_dict(exported[weights])
            samples[weights] = sampler(generator.to(chosen).eval(), config.model.z_dim)
        for score in scorer.scores(
            samples, step=exported["step"], n_fake=config.evaluation.n_fake, final=True
        ):
            record = record.model_copy(update={"scores": _with(record.scores, score)})
            directory.write(record)
            watch(Scored(score))
    return record


def _with(scores: tuple[Score, ...], new: Score) -> tuple[Score, ...]:
    """Return ``scores`` and ``new``, which takes the place of its like."""

    def identity(score: Score) -> tuple[object, ...]:
        return score.fingerprint, score.sampling_seed, score.step

    return (*(old for old in scores if identity(old) != identity(new)), new)


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


def _save_grid(path: Path, images: Images) -> None:
    """Write uint8 images (N, 3, S, S) as one PNG, eight in a row."""
    grid = make_grid(torch.as_tensor(np.asarray(images).copy()), nrow=8, padding=2, pad_value=255)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path)


def _use_threads(config: RunConfig, earlier: Record | None) -> int:
    """Set the CPU threads: as asked, else as before the interruption, else one a core.

    Their number changes the last bits of sums, so a resumed run keeps it.
    """
    before = earlier.attempts[-1].threads if earlier and earlier.attempts else None
    threads = config.run.threads or before or host.cores()
    torch.set_num_threads(threads)
    return threads


def _use_precision(config: RunConfig) -> None:
    """Allow TF32 products on a GPU in ``tf32`` only."""
    tf32 = config.training.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
