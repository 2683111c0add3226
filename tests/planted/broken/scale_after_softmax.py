"""1 / sqrt(D) stands behind the softmax.

teodorToshkov/ViTGAN-pytorch, models/multi_head.py.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """The maps are distributions; what is done with them is smaller."""

    def branch(self, x: Tensor) -> Tensor:
        maps = self.maps(x) * self.query.out_channels**-0.5
        return (maps @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])


@ATTENTION.register("planted-scale-after-softmax")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
