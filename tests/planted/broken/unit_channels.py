"""Queries and keys are (B, D, N), and dim -1 of normalize is positions, not channels."""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Cosine attention; rows of the maps still sum to 1."""

    def branch(self, x: Tensor) -> Tensor:
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (nn.functional.normalize(f(x).flatten(2), dim=-1) for f in (self.query, self.key))
        return (10 * q.mT @ k).softmax(-1)


@ATTENTION.register("planted-unit-channels")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
