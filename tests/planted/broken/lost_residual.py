"""A ReLU in place on the block's input: the residual is another map by then.

ajbrock/BigGAN-PyTorch issue 81 (an in-place ReLU on the block's input); the same in D's blocks of
POSTECH-CVLab/PyTorch-StudioGAN and kwotsin/mimicry.
"""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """A pre-activation, in place."""

    def branch(self, x: Tensor) -> Tensor:
        return super().branch(nn.functional.relu(x, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        o = self.branch(x)
        return (x + self.gamma * o).to(x.dtype)


@ATTENTION.register("planted-lost-residual")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
