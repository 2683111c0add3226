"""A vector of a power iteration moves in every forward pass, also of evaluation.

brain-research/self-attention-gan: G's spectral norms move whenever it is evaluated.
"""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """A spectral norm of its own on the values."""

    u: Tensor

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.register_buffer("u", torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "u"):
            nn.init.constant_(self.u, 0.1)

    def branch(self, x: Tensor) -> Tensor:
        matrix = self.value.weight.flatten(1)
        with torch.no_grad():
            v = nn.functional.normalize(self.u @ matrix, dim=0)
            self.u.copy_(nn.functional.normalize(matrix @ v, dim=0))
        return super().branch(x) / (self.u.clone() * (matrix @ v)).sum()


@ATTENTION.register("planted-changed-in-evaluation")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
