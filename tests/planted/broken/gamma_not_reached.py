"""Gamma enters as a number: it has no gradient and stays at 0.

Shape of the bug: heykeetae/Self-Attention-GAN issue 1 (gamma) and issue 57 (gamma hardly rises).
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """gamma.item()."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.gamma.detach() * self.branch(x)).to(x.dtype)


@ATTENTION.register("planted-gamma-not-reached")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
