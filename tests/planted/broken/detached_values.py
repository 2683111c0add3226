"""Values are of a detached x: all weights learn, and what stands before the block learns less."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """The gradient of x is that of the maps alone."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x.detach()).flatten(2).mT).mT.unflatten(2, x.shape[2:])


@ATTENTION.register("planted-detached-values")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
