"""A softmax without a dim takes dim 0 of three: an image looks at the other images.

torch.nn.Softmax() without dim, as much code for torch 0.3 wrote it, takes dim 0 of a 3-D tensor.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """softmax(dim=0)."""

    def branch(self, x: Tensor) -> Tensor:
        o = self.maps(x) @ self.value(x).flatten(2).mT
        return o.mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        return (q @ k.mT).softmax(0)


@ATTENTION.register("planted-batch-dependent-map")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
