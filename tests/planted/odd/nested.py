"""A transformer's layer: attention of two heads by linear layers, then a small network, nested."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Heads(nn.Module):
    """Of rows (B, N, C) the same, by scaled dot products of two heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.made = nn.Linear(channels, 3 * channels)
        self.mixed = nn.Linear(channels, channels)

    def forward(self, rows: Tensor) -> Tensor:
        q, k, v = self.made(rows).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        maps = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        o: Tensor = self.mixed((maps @ v).permute(0, 2, 1, 3).flatten(2))
        return o


class Odd(Block):
    """o = a + f(a), a = heads(norm(x))."""

    def __init__(self, site: Site, config: AttentionConfig) -> None:
        super().__init__(config)
        c = site.channels
        self.heads = nn.Sequential(nn.LayerNorm(c), Heads(c))
        self.f = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Sequential(nn.Linear(2 * c, c)))

    def branch(self, x: Tensor) -> Tensor:
        a = self.heads(x.flatten(2).mT)
        return (a + self.f(a)).mT.unflatten(2, x.shape[2:])


@ATTENTION.register("planted-nested")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site, self.config)
