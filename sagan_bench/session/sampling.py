"""Pictures from the generator that a finished run exported: samples by class, interpolations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import WEIGHTS, RunConfig
from sagan_bench.core import extensions, system
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.data.pixels import quantise
from sagan_bench.models.build import plain_generator
from sagan_bench.runs import records
from sagan_bench.runs.run import Run
from sagan_bench.session.probes import GRID_ROW, save_grid
from sagan_bench.training import checkpoint
from sagan_bench.training.generation import draw, noise

__all__ = ["TrainedGenerator", "load", "save_grid"]

BATCH = 64
SMALL_SINE = 1e-6


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator as it was scored after ``step``, and the names of its classes, if it has any."""

    config: RunConfig
    generator: nn.Module
    names: tuple[str, ...]
    step: int

    @property
    def truncation(self) -> float | None:
        """That of the run's scores."""
        return self.config.evaluation.truncation

    def classes_called(self, words: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of classes given by number or name.

        Raises:
            UserError: no such class, or a generator without classes.
        """
        count = self.config.model.classes
        if not count:
            raise UserError("this generator has no classes; leave out --classes")
        numbers = []
        for word in map(str.strip, words):
            if word in self.names:
                numbers.append(self.names.index(word))
            elif word.isdecimal() and int(word) < count:
                numbers.append(int(word))
            else:
                hint = closest(word, list(self.names)) if self.names else f"0 to {count - 1}"
                raise UserError(f"--classes: no class is called '{word}'; {hint}")
        return tuple(numbers)

    def images(
        self, n: int, seed: int, classes: Sequence[int] = (), truncation: float | None = None
    ) -> Tensor:
        """Return ``n`` images, uint8 (n, 3, S, S), in rows of eight of one class each.

        Classes take turns row by row; by default all of them.
        """
        z = noise(seed, 0, n, self.config.model.z_dim, truncation)
        labels = torch.tensor(classes or range(self.config.model.classes))
        rows = torch.arange(n) // GRID_ROW
        return self._drawn(z, labels[rows % len(labels)] if len(labels) else None)

    def interpolations(
        self, rows: int, seed: int, classes: Sequence[int] = (), truncation: float | None = None
    ) -> Tensor:
        """Return rows of eight images, uint8 (8 * rows, 3, S, S), each from one end to another.

        Noise moves along the great circle, which keeps its length; with two classes or more, each
        row goes from one to the next, the tables of G's norms being mixed in proportion.
        """
        ends = noise(seed, 0, 2 * rows, self.config.model.z_dim, truncation)
        share = torch.linspace(0, 1, GRID_ROW)
        z = torch.cat(
            [_great_circle(a, b, share) for a, b in zip(ends[::2], ends[1::2], strict=True)]
        )
        if not self.config.model.classes:
            return self._drawn(z, None)
        order = torch.tensor(classes or range(self.config.model.classes))
        first = order[torch.arange(rows) % len(order)].repeat_interleave(GRID_ROW)
        second = order[(torch.arange(rows) + 1) % len(order)].repeat_interleave(GRID_ROW)
        return self._drawn(z, first, second, share.repeat(rows))

    def _drawn(
        self,
        z: Tensor,
        labels: Tensor | None,
        others: Tensor | None = None,
        share: Tensor | None = None,
    ) -> Tensor:
        given = (each.split(BATCH) for each in (z, labels, others, share) if each is not None)
        with system.memory_for("making images", next(self.generator.parameters()).device):
            parts = [draw(self.generator, *part) for part in zip(*given, strict=True)]
        return quantise(torch.cat(parts))


def _great_circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Return points between a and b, each (z_dim,), at ``share`` (K,) of the way: (K, z_dim).

    On a straight line where a and b lie on one, as in a single dimension.
    """
    angle = torch.arccos(torch.dot(a / a.norm(), b / b.norm()).clamp(-1, 1))
    if angle.sin() < SMALL_SINE:
        return torch.lerp(a, b, share[:, None])
    first, second = (1 - share) * angle, share * angle
    return (first.sin()[:, None] * a + second.sin()[:, None] * b) / angle.sin()


def load(path: Path, weights: str, device: str = "auto") -> TrainedGenerator:
    """Return the generator of a finished run; ``weights`` are ``ema`` or ``raw``.

    Raises:
        UserError: no such run or weights, or it has not exported its weights, or it diverged.
    """
    if weights not in WEIGHTS:
        raise UserError(f"--weights {weights}: expected {' or '.join(WEIGHTS)}")
    record = records.read(path)
    if record.status.is_lost:
        raise UserError(f"{path} {record.status} ({record.reason}); it has no generator to use")
    config, file = Run(path, record).config, path / records.WEIGHTS
    if not file.exists():
        raise UserError(f"{path} has no exported weights; finish the run first")
    extensions.require(config.needed, path)
    state = checkpoint.load(file)
    chosen = system.open_device(device)
    with system.memory_for("loading the generator", chosen):
        generator = plain_generator(config, state[weights], chosen, file)
    classes = record.data.manifest["classes"] if record.data else ()
    known = classes if config.model.classes and isinstance(classes, list) else ()
    names = tuple(map(str, known))
    return TrainedGenerator(config, generator.eval(), names, state["step"])
