"""A family whose networks are written out: right as it is, and broken line by line in tests."""

from collections import OrderedDict

from torch import Tensor, nn

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._base import Family
from sagan_bench.models.layers import at_least_fp32, logits_of
from sagan_bench.models.placement import Places, norm_layers


def channels_by_side(image_size: int, width: float) -> dict[int, int]:
    """Return the channels of each feature map by its side: 8, 16, ... image_size / 2."""
    sides = [2**power for power in range(3, image_size.bit_length() - 1)]
    return {side: round(width * image_size / (2 * side)) for side in sides}


class Generator(nn.Sequential):
    """Noise to images: a linear layer to 8 x 8, then upsampling and a convolution a side."""

    def __init__(self, model: ModelConfig, image_size: int, width: float) -> None:
        channels = channels_by_side(image_size, width)
        # A block at each side that is asked for; a side that is not in `channels` is refused.
        places = Places("generator", model, channels, norm="batch")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 0
        for side, outputs in channels.items():
            makes: dict[str, nn.Module] = {}  # what makes the map of this side
            if side == 8:
                first = nn.Linear(model.z_dim, outputs * side * side)
                makes["up8"] = first
                makes["map8"] = nn.Unflatten(1, (outputs, side, side))
            else:
                makes[f"twice{side}"] = nn.Upsample(scale_factor=2)
                conv = nn.Conv2d(inputs, outputs, 3, padding=1)
                makes[f"up{side}"] = conv
            makes[f"norm{side}"] = nn.BatchNorm2d(outputs)
            makes[f"relu{side}"] = nn.ReLU()
            # A block stands after these layers or instead of them, as its kind says.
            layers |= places.at(side, makes, None if side == 8 else (inputs, side // 2))
            inputs = outputs
        layers["twice"] = nn.Upsample(scale_factor=2)
        layers["out"] = nn.Conv2d(inputs, 3, 3, padding=1)
        super().__init__(layers)
        norm_layers(self, model.spectral_norm.generator)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Return images (B, 3, S, S) in (-1, 1), fp32, from noise (B, z_dim)."""
        images: Tensor = super().forward(z)  # type: ignore[no-untyped-call]
        return at_least_fp32(images).tanh()


class Discriminator(nn.Sequential):
    """Images to logits: a convolution of stride 2 a side, then the mean over positions."""

    def __init__(
        self,
        model: ModelConfig,
        image_size: int,
        width: float,
        *,
        needs_double_backward: bool = False,
    ) -> None:
        channels = channels_by_side(image_size, width)
        places = Places(
            "discriminator",
            model,
            channels,
            norm="none",
            needs_double_backward=needs_double_backward,
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for side, outputs in sorted(channels.items(), reverse=True):
            conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            down = {
                f"down{side}": conv,
                f"relu{side}": nn.LeakyReLU(0.1),
            }
            layers |= places.at(side, down, (inputs, 2 * side))
            inputs = outputs
        layers["out"] = nn.Conv2d(inputs, 1, 3, padding=1)
        super().__init__(layers)
        norm_layers(self, model.spectral_norm.discriminator)
        self.sees = model.discriminator_sees

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits (B,), fp32, of images (B, 3, S, S) in [-1, 1]: no sigmoid."""
        return logits_of(self.sees, self._logits, images, labels)

    def _logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        scores: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return at_least_fp32(scores).mean(dim=(1, 2, 3))


@FAMILIES.register("own-networks")
class OwnNetworks(Family):
    """What configurations know: model.architecture = own-networks."""

    generator, discriminator = Generator, Discriminator
    knows = ()  # of model.classes and model.layout, what it has room for

    def width_of_a_channel(self, image_size: int) -> float:
        """Return the width that adds a channel to the widest map, the 8 x 8 one."""
        return 16 / image_size
