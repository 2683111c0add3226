"""Keys are pooled and values are not: the first quarter of the values is summed.

Shape of the bug: brain-research/self-attention-gan pools both (its issues 22 and 30 ask why); a
copy that forgets the second has more values than keys.
"""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Values cut to the number of keys."""

    def branch(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        values = self.value(x).flatten(2).mT[:, : maps.shape[2]]
        return (maps @ values).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q = self.query(x).flatten(2).mT
        k = nn.functional.max_pool2d(self.key(x), 2).flatten(2)
        return (q @ k).softmax(-1)


@ATTENTION.register("planted-keys-pooled-only")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
