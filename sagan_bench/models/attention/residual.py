"""The control with the parameters of attention, and without its context."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import LikeAnother

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("residual")
class ResidualInPlace(LikeAnother):
    """A bottleneck of 1x1 convolutions with as many parameters as ``full``, or another kind."""

    title = "residual"

    def block(self, channels: int, *, bias: bool = True, **_: bool) -> "Block":
        """Return the block for maps of C channels."""
        import torch

        from sagan_bench.models.attention._blocks import Residual

        with torch.device("meta"):
            block = ATTENTION[self.like.kind](self.like).block(channels, bias=bias)
        parameters = sum(p.numel() for name, p in block.named_parameters() if name != "gamma")
        return Residual(channels, self.config, parameters=parameters, bias=bias)
