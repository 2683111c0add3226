"""Each key is shared out among the queries, as in slot attention."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """The columns of the maps are distributions."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        return (q @ k.mT).softmax(1)


@ATTENTION.register("planted-softmax-over-queries")
class Kind(Attention):
    """Planted."""

    deliberate = ("softmax over queries",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
