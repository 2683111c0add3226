"""One finished run probed: its networks loaded, what comes of them stored beside its record."""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core import cpu, extensions, system
from sagan_bench.core.errors import UserError
from sagan_bench.core.progress import OnProgress
from sagan_bench.core.registry import METRICS
from sagan_bench.core.stored import fitting
from sagan_bench.data.store import Manifest, Store
from sagan_bench.evaluation.conditions import splits
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.models.build import (
    attention_blocks,
    plain_discriminator,
    plain_generator,
    skeleton,
)
from sagan_bench.runs import probe as stored
from sagan_bench.runs import records
from sagan_bench.runs.probe import Arm, Probe, ProbedBlock, ProbePicture
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run_directory import RunDirectory, read_now
from sagan_bench.session.events import Stop, Watch, followed
from sagan_bench.session.probes import save_grid
from sagan_bench.session.probing._figures import Measuring, measuring
from sagan_bench.session.probing._networks import (
    AS_IT_IS,
    Counter,
    probe_discriminator,
    probe_generator,
)
from sagan_bench.session.rescoring import exported, prepared, scored_by
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.generation import balanced

IMAGES = 512
"""That are drawn by default, the same noise for every arm."""


class _Asked(NamedTuple):
    """What decides what a probe gives, beside the run."""

    weights: Weights
    weights_sha256: str
    images: int
    metrics: tuple[str, ...]

    def is_answered(self, there: Probe) -> bool:
        """Return whether a probe that is there is of this."""
        return self == (there.weights, there.weights_sha256, there.images, there.asked)


def has_block(config: RunConfig) -> bool:
    """Return whether a run has a block that could be probed."""
    return any(attention_blocks(network) for network in skeleton(config))


def probe(
    path: Path,
    config: RunConfig,
    *,
    images: int = IMAGES,
    metrics: Collection[str] = (),
    again: bool = False,
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
) -> tuple[Probe, bool]:
    """Change each block of a finished run, measure, and store it as ``probe.json`` in its folder.

    Args:
        path: of the run.
        config: its own, but for the device.
        images: generated ones, at least 4; the noise is that of its scores.
        metrics: beyond those that need no extractor.
        again: whether to measure what is there already.
        watch: sees every event.
        stop: asked often.

    Returns:
        What is stored, and whether it was made now.

    Raises:
        UserError: the run is not finished, has no weights or no block, or there is no such metric.
        Stopped: ``stop`` asked for it.
    """
    record = _finished(path)
    extensions.require(config.needed, path)
    if not has_block(config):
        raise UserError(f"{path} has no block of attention, and nothing to probe")

    def store() -> Store:
        return prepared(config, path, record, followed("data", watch, stop, path))

    with RunDirectory(path, digest=record.config_digest, config=record.config) as directory:
        probing = _Probing(
            config, directory, record, store, followed("probe", watch, stop, path),
            images=images, metrics=metrics,
        )  # fmt: skip
        there = _there(path, again=again)
        if there is not None:
            is_whole = probing.asked.is_answered(there) and has_picture(path, there)
            if is_whole and not again:
                return there, False
            probing.keep_discriminator(there, again=again)
        torch.set_num_threads(record.attempts[-1].threads or cpu.cores())
        return probing.made(system.open_device(config.run.device)), True


def _there(path: Path, *, again: bool) -> Probe | None:
    """Return what is stored of a run; a damaged file is nothing, if it is to be made ``again``."""
    try:
        return stored.read(path)
    except UserError:
        if again:
            return None
        raise


def has_picture(path: Path, probe: Probe) -> bool:
    """Return whether the picture of a probe is there, if it has one."""
    return probe.picture is None or stored.picture_of(path, probe) is not None


def at_the_end(
    config: RunConfig,
    directory: RunDirectory,
    record: Record,
    store: Store,
    device: torch.device,
    progress: OnProgress,
) -> Probe | None:
    """Probe a run that is about to finish, D included, by the default; None if it has no block.

    Args:
        config: of the run.
        directory: held by this process, with the weights exported, and D's in a checkpoint.
        record: as of now, scored.
        store: its images.
        device: of the run.
        progress: told of images that are drawn; may raise.
    """
    if not has_block(config):
        return None
    probing = _Probing(config, directory, record, lambda: store, progress, images=IMAGES)
    return probing.made(device)


def _standing_over(images: int, config: RunConfig) -> RunConfig:
    """Return a configuration whose statistics are made over as many images as are drawn, or fewer.

    Each arm has its own, and all of a run's batches for each would be most of the work.
    """
    batches = max(1, images // config.training.batch_size)
    fewer = min(batches, config.evaluation.bn_batches)
    return override(config, {"evaluation.bn_batches": ("--images", fewer)})


def _finished(path: Path) -> Record:
    record = read_now(path)
    if record.status is not Status.FINISHED or record.data is None:
        why = f" ({record.reason})" if record.reason else ""
        raise UserError(
            f"{path} is {record.status}{why}: only the weights of a finished run are probed"
        )
    return record


class _OfD(NamedTuple):
    """What came of D."""

    ranking: float | None
    blocks: Sequence[ProbedBlock]
    arms: Sequence[Arm]

    @classmethod
    def kept_in(cls, probe: Probe) -> "_OfD":
        """Return what a stored probe has of D."""
        name = "discriminator"
        return cls(
            probe.untouched.ranking,
            [block for block in probe.blocks if block.network == name],
            [arm for arm in probe.arms if arm.network == name],
        )


class _Probing:
    """One run, its networks and what is measured of them.

    Args:
        config: of the run.
        directory: held by this process.
        record: of the run, with its scores.
        store: returns its images; called where they are needed.
        progress: told of images that are drawn.
        images: how many are, of each arm.
        metrics: beyond those that need no extractor.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        record: Record,
        store: Callable[[], Store],
        progress: OnProgress,
        *,
        images: int,
        metrics: Collection[str] = (),
    ) -> None:
        data = record.data
        assert data is not None
        self.manifest = fitting(
            lambda: Manifest.model_validate(data.manifest), directory.path / records.RECORD
        )
        self.config = measuring(_standing_over(images, config), metrics, self.manifest.kind)
        self.directory, self.record = directory, record
        self.store, self.counter = cache(store), Counter(progress)
        self.states = exported(directory)
        sha256 = hashlib.sha256(directory.weights.read_bytes()).hexdigest()
        kinds = scored_by(record)
        self.asked = _Asked(kinds[0], sha256, images, tuple(sorted(set(metrics))))
        self.kept: Probe | None = None
        """What was measured of D while its weights were there, which they are no more."""

    def keep_discriminator(self, there: Probe, *, again: bool) -> None:
        """Take over what was measured of D, where it cannot be measured any more.

        Raises:
            UserError: it would be lost, because other images are asked for.
        """
        if there.untouched.ranking is None or self._discriminator_saved():
            return
        if there.weights_sha256 != self.asked.weights_sha256:
            return
        if there.images == self.asked.images:
            self.kept = there
        elif not again:
            raise UserError(
                f"{self.directory.path} was probed with D over {there.images} images as it ended, "
                f"and D's weights are gone: add --images {there.images}, or --again, which leaves "
                "D out from now on"
            )

    def _discriminator_saved(self) -> Mapping[str, Any] | None:
        """Return the training state of the run's end, with all of D; None if it was not kept."""
        saved = Checkpoints(self.directory.checkpoints).latest(lean=True)
        return saved[1] if saved is not None and saved[0] == self.record.step else None

    def made(self, device: torch.device) -> Probe:
        """Return what comes of the run, stored."""
        began = time.perf_counter()
        with system.memory_for("probing", device):
            generator = plain_generator(
                self.config, self.states[self.asked.weights], device, self.directory.weights
            )
            probe, rows = self._measured(generator.eval().requires_grad_(False), device)
        picture = self._drawn(probe, rows)
        seconds = round(time.perf_counter() - began, 3)
        probe = probe.model_copy(update={"seconds": seconds, "picture": picture})
        stored.write(self.directory.path, probe)
        return probe

    def _drawn(self, probe: Probe, rows: Mapping[str, Tensor]) -> ProbePicture | None:
        """Return what ``probe.png`` shows, once it is written; None where nothing was changed."""
        if probe.primary is None or probe.primary.applied is None:
            return None
        file = self.directory.path / stored.PICTURE
        save_grid(file, torch.cat([*rows.values()]), row=len(rows[AS_IT_IS]))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        return ProbePicture(blocks=probe.primary.blocks, rows=tuple(rows), sha256=sha256)

    def _measured(
        self, generator: nn.Module, device: torch.device
    ) -> tuple[Probe, Mapping[str, Tensor]]:
        """Return what comes of the run, and the images of G that are shown."""
        measured = Measuring(
            self.config, self.manifest, self.asked.weights, self.asked.images,
            self.asked.metrics, self._scorer(device),
        )  # fmt: skip
        of_g = probe_generator(self.config, generator, measured, self.asked.images, self.counter)
        of_d = self._of_discriminator(of_g.images, device)
        blocks, arms, untouched = of_g.blocks, of_g.arms, of_g.untouched
        if isinstance(of_d, _OfD):
            blocks, arms = [*blocks, *of_d.blocks], [*arms, *of_d.arms]
            untouched = untouched.model_copy(update={"ranking": of_d.ranking})
        how = measured.protocol
        probe = Probe(
            run=self.directory.path.name,
            config_digest=self.record.config_digest,
            step=self.states["step"],
            weights=self.asked.weights,
            weights_sha256=self.asked.weights_sha256,
            images=self.asked.images,
            asked=self.asked.metrics,
            fingerprint=how.fingerprint(),
            protocol=how.model_dump(mode="json"),
            device=str(device),
            torch=torch.__version__,
            seconds=0.0,
            blocks=tuple(blocks),
            untouched=untouched,
            discriminator=None if isinstance(of_d, _OfD) else of_d,
            arms=tuple(arms),
        )
        return probe, of_g.rows

    def _of_discriminator(self, fake: Tensor, device: torch.device) -> "_OfD | str":
        """Return what comes of D, or why nothing does."""
        if not self.config.model.attention.discriminator:
            return "it has no block"
        if self.kept is not None:
            return _OfD.kept_in(self.kept)
        saved = self._discriminator_saved()
        if saved is None:
            return (
                "its weights were not kept; train with --set run.probe=true, which probes it as "
                "the run ends, or run.keep_training_state=true"
            )
        network = plain_discriminator(
            self.config, saved["discriminator"], device, self.directory.checkpoints
        )
        try:
            real, real_labels = self._real(len(fake))
        except UserError as error:
            return str(error)
        classes = balanced(self.config.model.classes)
        labels = None if classes is None else classes[torch.arange(len(fake)) % len(classes)]
        network = network.eval().requires_grad_(False)
        probed = probe_discriminator(
            self.config, network, (real, real_labels), (fake, labels), self.counter
        )
        return _OfD(probed.untouched.ranking, probed.blocks, probed.arms)

    def _real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return the first real images that it is scored against, and their labels if any."""
        split, _ = splits(self.config, self.store())
        real = torch.from_numpy(split.images[:count].copy())
        labels = (
            torch.from_numpy(split.labels[:count].copy()) if self.config.model.classes else None
        )
        return real, labels

    def _scorer(self, device: torch.device) -> Scorer | None:
        """Return what measures the metrics with an extractor that were asked for, if any were."""
        if all(METRICS[name].extractor is None for name in self.asked.metrics):
            return None
        evaluation = self.config.evaluation
        one = evaluation.model_copy(update={"sampling_seeds": evaluation.sampling_seeds[:1]})
        on_the_way = self.config.run.model_copy(update={"eval_metrics": "all"})
        config = self.config.model_copy(update={"evaluation": one, "run": on_the_way})
        return Scorer(config, self.store(), device, lambda done, total: None)
