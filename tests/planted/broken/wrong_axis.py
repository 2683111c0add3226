"""Values are summed over the rows of the map: its transpose was left out.

Shape of the bug: heykeetae/Self-Attention-GAN issue 1 (the attention equation); its code of today
transposes.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """value @ map, where the map's rows are what positions look at."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.value(x).flatten(2) @ self.maps(x)).unflatten(2, x.shape[2:])


@ATTENTION.register("planted-wrong-axis")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
