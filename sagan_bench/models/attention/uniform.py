"""The control with the context of attention, and without its choice."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.placed import Site

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("uniform")
class Uniform(Attention):
    """Self-attention with constant maps: every position sees the mean of all."""

    chooses = False

    def block(self, site: Site) -> "Block":
        """Return the block for a site."""
        from sagan_bench.models.attention._blocks import UniformAttention

        return UniformAttention(site.channels, self.config, bias=site.bias)
