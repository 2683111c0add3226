"""Two heads of cosines, each with a temperature of its own that is learned (Swin v2)."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Maps are the mean of two that differ."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        if channels < 16:
            raise ValueError(f"two heads need 16 channels; got {channels}")
        self.log_scale = nn.Parameter(torch.empty(2, 1, 1))
        self.out = nn.Conv2d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "log_scale"):
            nn.init.constant_(self.log_scale, 2.3)

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (2, -1)).mT

    def each(self, x: Tensor) -> Tensor:
        q, k = (self.split(layer(x)) for layer in (self.query, self.key))
        q, k = (nn.functional.normalize(rows, dim=-1) for rows in (q, k))
        return (q @ k.mT * self.log_scale.exp()).softmax(-1).to(x.dtype)

    def branch(self, x: Tensor) -> Tensor:
        o = self.each(x) @ self.split(self.value(x))
        return self.out(o.mT.flatten(1, 2).unflatten(2, x.shape[2:]))

    def maps(self, x: Tensor) -> Tensor:
        return self.each(x).mean(1)


@ATTENTION.register("planted-cosine-heads")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
