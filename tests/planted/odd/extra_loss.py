"""Maps that are to be sharp: their mean entropy is added to the loss of G and of D."""

import torch
from torch import Tensor

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Self-attention, plain, and the entropy of what it did last in training."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.entropy: Tensor | None = None

    def branch(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        if self.training:
            self.entropy = torch.special.entr(maps.float()).sum(-1).mean()
        return (maps @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def extra_loss(self) -> Tensor | None:
        return None if self.entropy is None else 0.1 * self.entropy


@ATTENTION.register("planted-extra-loss")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
