"""D makes its block and never calls it.

rosinality/sagan-pytorch issue 5: D did not use its attention at all.
"""

from torch import Tensor, nn

from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families.dcgan import Dcgan, Discriminator


class Critic(Discriminator):
    """The blocks are there."""

    def _logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        h = images
        for name, layer in self.named_children():
            h = h if name.startswith("attention") else layer(h)
        return nn.Flatten(0)(h).float()


@FAMILIES.register("planted-ignored-by-d")
class Planted(Dcgan):
    """Planted."""

    discriminator = Critic
