"""exp() without the largest taken off: large products are infinite.

No public code is known to us; attention in low precision is asked about in PixelDiT issue 14.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """A softmax by hand."""

    def branch(self, x: Tensor) -> Tensor:
        o = self.maps(x) @ self.value(x).flatten(2).mT
        return o.mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        weights = (q @ k.mT).exp()
        return weights / weights.sum(-1, keepdim=True)


@ATTENTION.register("planted-overflow")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
