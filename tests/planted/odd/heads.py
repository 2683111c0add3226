"""Four heads; the maps are their mean (giannisdaras/ylg has such heads)."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """C / 8 query channels, split among the heads."""

    heads = 4

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        if channels // 8 < self.heads:
            raise ValueError(f"{self.heads} heads need {8 * self.heads} channels; got {channels}")
        self.out = nn.Conv2d(channels, channels, 1)

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (self.heads, -1)).mT

    def each(self, x: Tensor) -> Tensor:
        query, key = self.split(self.query(x)), self.split(self.key(x))
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)

    def branch(self, x: Tensor) -> Tensor:
        o = self.each(x) @ self.split(self.value(x))
        return self.out(o.mT.flatten(1, 2).unflatten(2, x.shape[2:]))

    def maps(self, x: Tensor) -> Tensor:
        return self.each(x).mean(1)


@ATTENTION.register("planted-heads")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
