"""External attention: keys and values are weights, of no image (Guo et al. 2021)."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """A softmax over positions, then a share of each of 32 units."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(config)
        self.units = nn.Conv2d(channels, 32, 1, bias=False)
        self.values = nn.Conv2d(32, channels, 1)

    def branch(self, x: Tensor) -> Tensor:
        shares = self.units(x).flatten(2).softmax(2)
        shares = shares / (shares.sum(1, keepdim=True) + 1e-6)
        return self.values(shares.unflatten(2, x.shape[2:]))


@ATTENTION.register("planted-external")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
