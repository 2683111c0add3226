"""Queries are detached: their projection stays what it was drawn.

No public code is known to us.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """query(x).detach()."""

    def branch(self, x: Tensor) -> Tensor:
        o = self.maps(x) @ self.value(x).flatten(2).mT
        return o.mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        return (q.detach() @ k.mT).softmax(-1)


@ATTENTION.register("planted-projection-without-gradient")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
