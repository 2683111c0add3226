"""Keys are pooled 2 x 2, and values by four in a row: as many, of other places."""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Key and value of one number are of different positions."""

    def branch(self, x: Tensor) -> Tensor:
        values = nn.functional.max_pool1d(self.value(x).flatten(2), 4).mT
        return (self.maps(x) @ values).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        keys = nn.functional.max_pool2d(self.key(x), 2).flatten(2)
        return (self.query(x).flatten(2).mT @ keys).softmax(-1)


@ATTENTION.register("planted-pooled-in-a-row")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
