"""CBAM: channels are weighed by mean and largest, positions by a convolution (Woo et al. 2018)."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """Squeeze and excitation, and a map of one channel."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(config)
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def branch(self, x: Tensor) -> Tensor:
        means, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = x * sum(self.excite(self.squeeze(each).relu()) for each in (means, largest)).sigmoid()
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.place(both).sigmoid()


@ATTENTION.register("planted-convolutional")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
