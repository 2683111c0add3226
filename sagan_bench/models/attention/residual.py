"""The control with the parameters of attention, and without its context."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import LikeAnother
from sagan_bench.models.placed import Site

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("residual")
class ResidualInPlace(LikeAnother):
    """A bottleneck of 1x1 convolutions with as many parameters as ``full``, or another kind."""

    title = "residual"

    def block(self, site: Site) -> "Block":
        """Return the block for a site."""
        import torch

        from sagan_bench.models.attention._blocks import Residual

        like = ATTENTION[self.like.kind](self.like)
        if like.place == "instead":
            raise ValueError(
                f"{self.settings.like} stands instead of a layer; its control is kind wider, with "
                "model.attention.options.by=parameters"
            )
        with torch.device("meta"):
            block = like.block(site)
        parameters = sum(p.numel() for name, p in block.named_parameters() if name != "gamma")
        return Residual(site.channels, self.config, parameters=parameters, bias=site.bias)
