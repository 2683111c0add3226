"""The control with the parameters of attention, and without its context."""

from typing import TYPE_CHECKING

from sagan_bench.config.options import Options
from sagan_bench.config.schema import Section
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.placed import Site

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("residual")
class ResidualInPlace(Attention):
    """A bottleneck of 1x1 convolutions with as many parameters as ``full``, or another kind."""

    title = "residual"
    is_attention = False

    class Settings(Section):
        """Which kind it is to have as many parameters as."""

        like: str = "full"

    def block(self, site: Site) -> "Block":
        """Return the block for a site."""
        import torch

        from sagan_bench.models.attention._blocks import Residual

        if ATTENTION[self.settings.like].place == "instead":
            raise ValueError(
                f"{self.settings.like} stands instead of a layer; its control is kind wider, with "
                "model.attention.options.by=parameters"
            )
        like = self.config.model_copy(update={"kind": self.settings.like, "options": Options()})
        with torch.device("meta"):
            block = ATTENTION[like.kind](like).block(site)
        parameters = sum(p.numel() for name, p in block.named_parameters() if name != "gamma")
        return Residual(site.channels, self.config, parameters=parameters, bias=site.bias)
