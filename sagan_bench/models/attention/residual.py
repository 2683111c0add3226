"""The control with the parameters of attention, and without its context."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("residual")
class ResidualInPlace(Attention):
    """A bottleneck of 1x1 convolutions with as many parameters as ``full``."""

    title = "residual"
    is_attention = False

    def block(self, channels: int, *, bias: bool = True, **_: bool) -> "Block":
        """Return the block for maps of C channels."""
        from sagan_bench.models.attention._blocks import Residual

        return Residual(channels, self.config, bias=bias)
