"""A factor for each channel, small at the start, beside gamma (timm's LayerScale)."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """o = factor * attention, without a module for it."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.factor = nn.Parameter(torch.empty(channels, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "factor"):
            nn.init.constant_(self.factor, 1e-5)

    def branch(self, x: Tensor) -> Tensor:
        return self.factor * super().branch(x)


@ATTENTION.register("planted-layer-scale")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
