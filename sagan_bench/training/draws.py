"""The noise and the labels of each update: a function of (seed, step), whatever the processes."""

import torch
from torch import Tensor

from sagan_bench.config import RunConfig
from sagan_bench.data.seeding import generator as stream
from sagan_bench.parallel import Shard


class Draws:
    """What is drawn for one run; each method returns this process's part of the global batch."""

    def __init__(self, config: RunConfig, shard: Shard, device: torch.device) -> None:
        self.config, self.shard, self.device = config, shard, device
        self.dtype = torch.float64 if config.training.precision == "fp64" else torch.float32

    def z(self, *path: str | int) -> Tensor:
        """Return the noise of one update: (B, z_dim), float64 on the CPU, then as wide as used."""
        shape = (self.config.training.batch_size, self.config.model.z_dim)
        z = torch.randn(shape, generator=self._stream("z", *path), dtype=torch.float64)
        return self._part(z.to(self.dtype))

    def labels(self, *path: str | int) -> tuple[Tensor, ...]:
        """Return the labels of generated images, uniform, (B,) int64; nothing without classes."""
        if not (classes := self.config.model.classes):
            return ()
        shape = (self.config.training.batch_size,)
        drawn = torch.randint(classes, shape, generator=self._stream("label", *path))
        return (self._part(drawn),)

    def share(self, step: int, draw: int) -> Tensor:
        """Return each image's place between real and fake, for gradient penalties: (B, 1, 1, 1)."""
        shape = (self.config.training.batch_size, 1, 1, 1)
        uniform = torch.rand(shape, generator=self._stream("share", step, draw))
        return self._part(uniform.to(self.dtype))

    def _stream(self, *path: str | int) -> torch.Generator:
        return stream(self.config.seed, *path)

    def _part(self, whole: Tensor) -> Tensor:
        part = self.shard.part(whole, self.config.training.micro_batch)
        return part.to(self.device, non_blocking=True)
