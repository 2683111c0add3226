"""A family: one linear layer each, and a block in G."""

from torch import Tensor, nn

from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._base import Family
from sagan_bench.models.placement import Places


class Network(nn.Sequential):
    """Layers in a row, without labels."""

    def forward(self, x: Tensor, labels: None = None) -> Tensor:
        """Return the last layer's output."""
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y


@FAMILIES.register("linear")
class Linear(Family):
    """The smallest networks."""

    def networks(
        self, image_size: int, widths: tuple[float, float], **how: bool
    ) -> tuple[nn.Module, nn.Module]:
        """Return G and D."""
        width, size = round(widths[0]), image_size
        places = Places("generator", self.config, {size: width}, norm="group")
        first = nn.Linear(self.config.z_dim, width * size**2), nn.Unflatten(1, (width, size, size))
        Places("discriminator", self.config, {}, norm="none")  # which has no map: no side is right
        blocks = places.at(size, {}).values()
        g = Network(*first, nn.GroupNorm(1, width), *blocks, nn.Conv2d(width, 3, 1), nn.Tanh())
        return g, Network(nn.Flatten(), nn.Linear(3 * size**2, 1), nn.Flatten(0))

    def width_of_a_channel(self, image_size: int) -> float:
        """Return 1: a channel of the only map."""
        return 1.0
