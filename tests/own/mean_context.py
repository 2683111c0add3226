"""An attention kind: the mean of all positions, in groups of channels."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.config.section import Section
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Groups(Block):
    """o = W mean(x), W block-diagonal."""

    def __init__(self, channels: int, config: AttentionConfig, groups: int) -> None:
        super().__init__(config)
        self.value = nn.Conv2d(channels, channels, 1, groups=groups)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, 1, 1)."""
        o: Tensor = self.value(x.mean(dim=(2, 3), keepdim=True))
        return o


@ATTENTION.register("mean-context")
class MeanContext(Attention):
    """A control with as many groups as its settings say."""

    title, is_attention = "mean context", False

    class Settings(Section):
        """Groups of channels."""

        groups: int = 2

    def block(self, site: Site) -> Block:
        """Return the block for a site."""
        return Groups(site.channels, self.config, self.settings.groups)
