"""The softmax is of plus the squared distance: what is far is looked at.

mlpc-ucsd/ViTGAN, models/gan/stylegan2/vit_common.py.
"""

from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """L2 attention, its sign lost."""

    def branch(self, x: Tensor) -> Tensor:
        o = self.maps(x) @ self.value(x).flatten(2).mT
        return o.mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        squares = (q[:, :, None] - k[:, None]).square().sum(-1)
        return (squares / q.shape[-1] ** 0.5).softmax(-1)


@ATTENTION.register("planted-wrong-sign")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
