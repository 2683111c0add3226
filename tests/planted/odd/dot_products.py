"""The non-local block by dot products over N, which are no distribution (Wang et al. 2018)."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Maps have negative entries."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        return q @ k.mT / k.shape[1]


@ATTENTION.register("planted-dot-products")
class Kind(Attention):
    """Planted."""

    deliberate = ("no distribution",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
