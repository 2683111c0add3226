"""Keys and values are pooled, of rows made by linear layers, by their mean."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """(B, N, C) throughout, and normalised first."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(config)
        self.norm = nn.GroupNorm(1, channels)
        self.query = nn.Linear(channels, channels // 8)
        self.key = nn.Linear(channels, channels // 8)
        self.value = nn.Linear(channels, channels // 2)
        self.out = nn.Linear(channels // 2, channels)

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(x)
        pooled = nn.functional.avg_pool2d(h, 2)
        return h.flatten(2).mT, pooled.flatten(2).mT

    def branch(self, x: Tensor) -> Tensor:
        o = self.maps(x) @ self.value(self.rows(x)[1])
        return self.out(o).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        rows, pooled = self.rows(x)
        return (self.query(rows) @ self.key(pooled).mT).softmax(-1)


@ATTENTION.register("planted-pooled-rows")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
