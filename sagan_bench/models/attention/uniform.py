"""The control with the context of attention, and without its choice."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention

if TYPE_CHECKING:
    from sagan_bench.models.attention._blocks import Block


@ATTENTION.register("uniform")
class Uniform(Attention):
    """Self-attention with constant maps: every position sees the mean of all."""

    def block(self, channels: int, *, bias: bool = True, **_: bool) -> "Block":
        """Return the block for maps of C channels."""
        from sagan_bench.models.attention._blocks import UniformAttention

        return UniformAttention(channels, self.config, bias=bias)
