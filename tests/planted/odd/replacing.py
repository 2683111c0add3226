"""Instead of a layer: attention within windows of 2 x 2, strided in D and stretched in G."""

import torch
from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """Values of a window, weighed by a softmax over it, in each of the larger map's windows."""

    def __init__(self, site: Site) -> None:
        super().__init__()  # without gamma
        self.up = site.side > site.side_in
        self.value = nn.Conv2d(site.channels_in, site.channels, 1, bias=site.bias)
        self.weigh = nn.Conv2d(site.channels, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(site.channels) if site.norm == "batch" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        values = self.value(x)
        values = torch.repeat_interleave(values, 2, 2) if self.up else values
        values = torch.repeat_interleave(values, 2, 3) if self.up else values
        within = nn.functional.pixel_unshuffle(self.weigh(values), 2).softmax(1)
        if self.up:
            y = values * nn.functional.pixel_shuffle(within, 2)
        else:
            y = nn.functional.avg_pool2d(values * nn.functional.pixel_shuffle(within, 2), 2) * 4
        y = nn.functional.leaky_relu(self.norm(y), 0.1).to(x.dtype)
        return y.contiguous(memory_format=torch.channels_last)


@ATTENTION.register("planted-replacing")
class Kind(Attention):
    """Planted."""

    title, place = "window", "instead"
    deliberate = ("batch statistics",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site)
