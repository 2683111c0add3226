"""y = gamma * o: x is left out, and nothing passes at the start.

No public code is known to us.
"""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """The sum forgotten."""

    def forward(self, x: Tensor) -> Tensor:
        return (
            (self.gamma * self.branch(x))
            .to(x.dtype)
            .contiguous(
                memory_format=torch.channels_last
                if x.is_contiguous(memory_format=torch.channels_last)
                else torch.contiguous_format
            )
        )


@ATTENTION.register("planted-no-residual")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
