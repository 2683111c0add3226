"""The maps that are shown are divided by their sums, and those that are used are not."""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """A kernel's weights, elu + 1, over their number."""

    def weights(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        return nn.functional.elu(q @ k.mT) + 1

    def branch(self, x: Tensor) -> Tensor:
        weights = self.weights(x) / x[0, 0].numel()
        return (weights @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        weights = self.weights(x)
        return weights / weights.sum(-1, keepdim=True)


@ATTENTION.register("planted-not-divided")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
