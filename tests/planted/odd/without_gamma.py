"""A plain residual block with batch statistics: gamma is not used."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """y = x + conv(relu(norm(x)))."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(config)
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(self.norm(x).relu())).to(x.dtype)


@ATTENTION.register("planted-without-gamma")
class Kind(Attention):
    """Planted."""

    is_attention, positions = False, True
    deliberate = ("no gamma", "batch statistics")

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
