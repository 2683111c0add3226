"""Gates by each channel's standard deviation, whose root has no epsilon below it.

A channel that is constant, as behind a ReLU that is dead, has no gradient then but NaN.
"""

import torch
from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class ByStyle(Block):
    """Channel attention of style, Lee et al. 2019, arXiv 1903.10829."""

    def __init__(self, site: Site, kind: Attention) -> None:
        super().__init__(kind.config)
        self.gate = nn.Conv2d(site.channels, site.channels, (1, 2), groups=site.channels)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, H, W)."""
        style = torch.stack([x.mean((2, 3)), x.var((2, 3)).sqrt()], -1)
        return x * self.gate(style[:, :, None]).sigmoid()


@ATTENTION.register("planted-root-without-epsilon")
class RootWithoutEpsilon(Attention):
    """Its bug: var().sqrt()."""

    def block(self, site: Site) -> Block:
        """Return the block for a site."""
        return ByStyle(site, self)
