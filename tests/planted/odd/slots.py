"""Each key is shared out among the queries, and rows are divided by their sums (slot attention)."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Rows are distributions, each of which depends on all queries."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        shares = (q @ k.mT).softmax(1) + 1e-6
        return shares / shares.sum(2, keepdim=True)


@ATTENTION.register("planted-slots")
class Kind(Attention):
    """Planted."""

    deliberate = ("rows depend on each other",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
