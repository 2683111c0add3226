"""Looks at the networks while they train: grids of samples, and what attention does."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sagan_bench.config.schema import RunConfig, RunSection
from sagan_bench.core import system
from sagan_bench.core.files import atomic_file
from sagan_bench.data.pixels import normalise
from sagan_bench.data.store import Store
from sagan_bench.evaluation.features import Images
from sagan_bench.evaluation.metrics import parts_of
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.models.build import attention_blocks
from sagan_bench.runs.records import BlockReading
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.training.diagnostics import BlockDiagnostics, diagnose
from sagan_bench.training.draws import dtype_of
from sagan_bench.training.generation import noise, sampler, standing
from sagan_bench.training.state import TrainState

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

EARLY_GRID_BASE = 4
"""Steps that are its powers have a grid: one with its diagnostics takes as long as 1.2 steps, and
so the early ones together no more than a few."""

Blocks = dict[tuple[str, str], BlockDiagnostics]
"""(network, name of the block) -> what it does."""


def is_due(run: RunSection, step: int) -> bool:
    """Return whether a grid is drawn after a step: by its number alone, so that runs repeat.

    It is each ``sample_every`` steps and at the last one, and before the first of these after 1, 4,
    16, ... steps, so that there is something to see in the first minute.
    """
    if step % run.sample_every == 0 or step == run.steps:
        return True
    is_early, root = step < run.sample_every, step
    while root % EARLY_GRID_BASE == 0:
        root //= EARLY_GRID_BASE
    return is_early and root == 1


class Probes:
    """Draws grids and diagnoses blocks of attention, and leaves both in the run's directory."""

    def __init__(self, config: RunConfig, store: Store, directory: RunDirectory) -> None:
        self.config, self.store, self.directory = config, store, directory

    def draw_real(self) -> None:
        """Write a grid of real images."""
        save_grid(self.directory.samples / "real.png", self._real_images())

    def grid(self, step: int) -> Path:
        """Return the file of the grid of a step."""
        return self.directory.samples / f"step-{step:08d}.png"

    def look(self, state: TrainState) -> tuple[BlockReading, ...]:
        """Write a grid of samples, rows and maps of the blocks, and return the blocks' readings.

        Raises:
            NonFiniteImages: G made NaN or infinity.
        """
        generator = standing(self.config, state.ema, GRID_BATCHES)
        images = self._samples(generator)
        save_grid(self.grid(state.step), images)
        blocks = self._diagnosed(generator, images, state)
        if blocks:
            self._log(state.step, blocks)
            self._save_maps(state.step, blocks, images)
        return tuple(
            BlockReading(network=network, name=name, step=state.step, **block.figures())
            for (network, name), block in blocks.items()
        )

    def _samples(self, generator: nn.Module) -> Images:
        """Return images for a grid, in rows of one class where there are classes."""
        config, labels = self.config, grid_labels(self.config.model.classes)
        sample = sampler(
            generator,
            config.model.z_dim,
            labels=labels,
            truncation=config.evaluation.truncation,
        )
        count = GRID_IMAGES if labels is None else len(labels)
        return sample_images(sample, count, config.seed, GRID_IMAGES)

    def _real_images(self) -> Images:
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

    def _diagnosed(self, generator: nn.Module, images: Images, state: TrainState) -> Blocks:
        """Return what the blocks of both networks do on the first samples and real images."""
        device, real = state.device, self.store.train.images
        networks = {
            "generator": (generator, self._generator_inputs(device), images),
            "discriminator": (state.discriminator, self._discriminator_inputs(device), real),
        }
        return {
            (name, block): reading
            for name, (network, inputs, shown) in networks.items()
            if attention_blocks(network)
            for block, reading in diagnose(
                network, *inputs, pictured=PICTURED, parts=self._parts(shown)
            ).items()
        }

    def _parts(self, images: Images) -> Tensor | None:
        """Return the two parts of each of the first images that must agree, if they have such."""
        first = torch.as_tensor(np.asarray(images[:DIAGNOSED]).copy())
        return parts_of(first, self.config, self.store.manifest.kind)

    def _generator_inputs(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Return the noise (B, z_dim) of the grid's first images, and their labels (B,) if any."""
        config = self.config
        z = noise(config.seed, 0, DIAGNOSED, config.model.z_dim, config.evaluation.truncation)
        labels = grid_labels(config.model.classes)
        sent = None if labels is None else system.sent(labels[:DIAGNOSED], device)
        return system.sent(z, device), sent

    def _discriminator_inputs(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Return the first real images (B, 3, S, S) in [-1, 1], and their labels (B,) if any."""
        train = self.store.train
        images = torch.from_numpy(train.images[:DIAGNOSED].copy())
        pixels = normalise(system.sent(images, device)).to(dtype_of(self.config))
        if not self.config.model.classes:
            return pixels, None
        labels = torch.from_numpy(train.labels[:DIAGNOSED].copy())
        return pixels, system.sent(labels, device)

    def _log(self, step: int, blocks: Blocks) -> None:
        figures = {f"{net}.{name}": block.figures() for (net, name), block in blocks.items()}
        self.directory.log_diagnostics({"step": step, **figures})

    def _save_maps(self, step: int, blocks: Blocks, images: Images) -> None:
        """Write the maps of attention, and the images that they are of."""
        maps = {f"{net}.{name}": block.maps for (net, name), block in blocks.items() if block.maps}
        arrays: dict[str, Any] = {
            f"beta.{name}": attention.beta.astype(np.float16) for name, attention in maps.items()
        }
        arrays |= {
            f"queries.{name}": np.array(attention.queries) for name, attention in maps.items()
        }
        arrays["generator"] = np.asarray(images[:PICTURED])
        arrays["discriminator"] = np.array(self.store.train.images[:PICTURED])
        self.directory.diagnostics.mkdir(exist_ok=True)
        with atomic_file(self.directory.diagnostics / f"step-{step:08d}.npz") as file:
            np.savez_compressed(file, **arrays)


def save_grid(path: Path, images: Images, row: int = GRID_ROW) -> None:
    """Write uint8 images (N, 3, S, S) as one PNG, so many in a row."""
    from torchvision.utils import make_grid  # seconds to import, and few commands draw

    grid = make_grid(torch.as_tensor(np.asarray(images).copy()), nrow=row, padding=2, pad_value=255)
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
