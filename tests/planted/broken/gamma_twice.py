"""branch() multiplies by gamma as SAGAN's code does, and so does Block.forward."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """y = x + gamma^2 o, whose gradient at 0 is 0."""

    def branch(self, x: Tensor) -> Tensor:
        return self.gamma * super().branch(x)


@ATTENTION.register("planted-gamma-twice")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
