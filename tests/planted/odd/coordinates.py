"""Positions enter the keys: it knows where it is."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Keys of x and of the coordinates."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.place = nn.Conv2d(2, channels, 1)

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        sides = (
            torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in x.shape[2:]
        )
        where = torch.stack(torch.meshgrid(*sides, indexing="ij"))
        q, k = self.query(x), self.key(x + self.place(where[None]))
        return (q.flatten(2).mT @ k.flatten(2)).softmax(-1)


@ATTENTION.register("planted-coordinates")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
