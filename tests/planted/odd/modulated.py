"""A gate for each image and channel, made of G's noise; in D, which has none, of x itself."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """o = gate(z) * value(x)."""

    def __init__(self, site: Site, config: AttentionConfig) -> None:
        super().__init__(config)
        known = site.z_dim if site.network == "generator" else site.channels
        self.gate = nn.Linear(known, site.channels)
        self.value = nn.Conv2d(site.channels, site.channels, 1, bias=site.bias)

    def branch(self, x: Tensor) -> Tensor:
        z = self.call.z
        known = x.mean(dim=(2, 3)) if z is None else z
        return torch.sigmoid(self.gate(known))[:, :, None, None] * self.value(x)


@ATTENTION.register("planted-modulated")
class Kind(Attention):
    """Planted."""

    is_attention = False
    knows = ("z",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site, self.config)
