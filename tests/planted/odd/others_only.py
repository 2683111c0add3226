"""A convolution, dilated, that leaves out its own position."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """What stands around a position, 2 away."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(config)
        self.conv = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)

    def branch(self, x: Tensor) -> Tensor:
        around = torch.ones_like(self.conv.weight[:1, :1])
        around[..., 1, 1] = 0
        weight = self.conv.weight * around
        return nn.functional.conv2d(x, weight, self.conv.bias, padding=2, dilation=2)


@ATTENTION.register("planted-others-only")
class Kind(Attention):
    """Planted."""

    is_attention, positions, deliberate = False, True, ("own position not seen",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
