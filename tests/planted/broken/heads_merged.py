"""Heads are merged by a reshape without a transposition: positions and channels are mixed."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """(B, 2, N, V / 2) is read as (B, V, N); that it knows positions hides it."""

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (2, -1)).mT

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.split(self.value(x))).reshape(x.shape)

    def maps(self, x: Tensor) -> Tensor:
        return (self.split(self.query(x)) @ self.split(self.key(x)).mT).softmax(-1)


@ATTENTION.register("planted-heads-merged")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
