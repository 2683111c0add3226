"""What it adds fades out as training goes on."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """o = (1 - step / steps / 2) * value(x)."""

    def __init__(self, site: Site, config: AttentionConfig) -> None:
        super().__init__(config)
        self.value = nn.Conv2d(site.channels, site.channels, 1, bias=site.bias)

    def branch(self, x: Tensor) -> Tensor:
        step, steps = self.call.step, self.call.steps
        assert step is not None
        assert steps is not None
        return (1 - step / (2 * steps)) * self.value(x)


@ATTENTION.register("planted-annealed")
class Kind(Attention):
    """Planted."""

    is_attention = False
    knows = ("step",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site, self.config)
