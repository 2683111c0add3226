"""The softmax is over heads, dim 1 of four: positions are not weighed against each other."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Two heads; the mean of their maps is even."""

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (2, -1)).mT

    def each(self, x: Tensor) -> Tensor:
        return (self.split(self.query(x)) @ self.split(self.key(x)).mT).softmax(1)

    def branch(self, x: Tensor) -> Tensor:
        o = self.each(x) @ self.split(self.value(x))
        return o.mT.flatten(1, 2).unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        return self.each(x).mean(1)


@ATTENTION.register("planted-softmax-over-heads")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
