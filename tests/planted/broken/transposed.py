"""Rows and columns of o are exchanged, and a reshape hides it where maps are square."""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Attention without maps, whose o comes out at the mirrored position."""

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2).mT for layer in (self.query, self.key, self.value))
        o = ((q @ k.mT).softmax(-1) @ v).mT.unflatten(2, x.shape[2:])
        return o.mT.reshape(o.shape)

    def maps(self, x: Tensor) -> None:  # type: ignore[override]
        return None


@ATTENTION.register("planted-transposed")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
