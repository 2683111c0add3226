"""The noise and the labels of each update: a function of (seed, step), whatever the processes."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.registry import LOSSES
from sagan_bench.core.seeding import generator as stream


class Noise(NamedTuple):
    """What chance gives to one update: this process's part of the global batch."""

    z: Tensor
    """(B, z_dim), as wide as the weights."""
    labels: Tensor | None = None
    """Of the generated images, uniform, (B,) int64; None without classes."""
    share: Tensor | None = None
    """Each image's place between real and fake, (B, 1, 1, 1); None for a loss that mixes none."""

    def to(self, device: torch.device) -> "Noise":
        """Return the same on a device, which is not waited for."""
        labels, share = (
            None if each is None else system.sent(each, device)
            for each in (self.labels, self.share)
        )
        return Noise(system.sent(self.z, device), labels, share)


class StepNoise(NamedTuple):
    """What chance gives to one step: to each of D's updates, and to G's."""

    critic: tuple[Noise, ...]
    generator: Noise


def step_noise(config: RunConfig, context: DistributedContext, step: int) -> StepNoise:
    """Return the noise of one step, on the CPU."""
    training, classes = config.training, config.model.classes
    size, seed = training.batch_size, config.seed_of("noise")

    def part(whole: Tensor) -> Tensor:
        return context.part(whole, training.micro_batch)

    def z(*path: str | int) -> Tensor:
        source = stream(seed, "z", *path)
        wide = torch.randn((size, config.model.z_dim), generator=source, dtype=torch.float64)
        return part(_narrowed(wide, training.precision))

    def labels(*path: str | int) -> Tensor | None:
        if not classes:
            return None
        return part(torch.randint(classes, (size,), generator=stream(seed, "label", *path)))

    def share(update: int) -> Tensor | None:
        if not LOSSES[training.loss].mixes:
            return None
        uniform = torch.rand((size, 1, 1, 1), generator=stream(seed, "share", step, update))
        return part(uniform.to(dtype_of(config)))

    critic = (
        Noise(z("d", step, update), labels("d", step, update), share(update))
        for update in range(training.n_critic)
    )
    return StepNoise(tuple(critic), Noise(z("g", step), labels("g", step)))


def dtype_of(config: RunConfig) -> torch.dtype:
    """Return the type of weights and noise: float64 for precision ``fp64``, else float32."""
    return torch.float64 if config.training.precision == "fp64" else torch.float32


def _narrowed(wide: Tensor, precision: str) -> Tensor:
    """Return float64 noise as wide as it is used."""
    if precision == "fp64":
        return wide
    # By numpy: torch would start a second pool of threads for the one that draws ahead.
    return torch.from_numpy(wide.numpy().astype(np.float32))


class Draws:
    """The noise of one run, on its device; on a GPU a thread draws that of the next step ahead.

    Best asked in the order of steps. A context manager: its end stops the thread.
    """

    def __init__(
        self, config: RunConfig, context: DistributedContext, device: torch.device
    ) -> None:
        self.config, self.context, self.device = config, context, device
        self.ahead = ThreadPoolExecutor(1, "draws") if device.type != "cpu" else None
        self.coming: dict[int, Future[StepNoise]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.ahead:
            self.ahead.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> StepNoise:
        """Return the noise of ``step`` on the device."""
        drawn = self._drawn(step)
        critic = tuple(noise.to(self.device) for noise in drawn.critic)
        return StepNoise(critic, drawn.generator.to(self.device))

    def _drawn(self, step: int) -> StepNoise:
        if self.ahead is None:
            return step_noise(self.config, self.context, step)
        drawn = self.coming.get(step) or self._submit(step)
        self.coming = {step + 1: self._submit(step + 1)}
        return drawn.result()

    def _submit(self, step: int) -> "Future[StepNoise]":
        assert self.ahead
        return self.ahead.submit(step_noise, self.config, self.context, step)
