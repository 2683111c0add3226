"""The seed project's network: DCGAN with spectral norm and self-attention at chosen sides.

Source: heykeetae/Self-Attention-GAN at 8714a54.  Departures: attention may sit at any feature-map
side, other image sizes, spectral norm on every convolution by default, and the flattening that
`sagan_bench.models.layers.SpectralNorm` names.
"""

from collections import OrderedDict

from torch import Tensor, nn

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._base import Family
from sagan_bench.models.layers import at_least_fp32, logits_of
from sagan_bench.models.placement import Places, norm_layers

LEAK = 0.1
"""Negative slope of D's leaky ReLU, the seed project's."""


def sides(image_size: int) -> list[int]:
    """Return the sides of the hidden feature maps, ascending: 4, 8, ... image_size / 2."""
    return [2**power for power in range(2, image_size.bit_length() - 1)]


def channels_by_side(image_size: int, width: float) -> dict[int, int]:
    """Return the channels at each side: ``width`` at the largest map, doubling inwards, rounded.

    At equal widths G and D mirror each other.
    """
    return {side: round(width * image_size / (2 * side)) for side in sides(image_size)}


class Generator(nn.Sequential):
    """Noise to images.

    ``up4`` makes a 4 x 4 map, each further ``upN`` (transposed convolution 4 x 4 stride 2,
    BatchNorm, ReLU) doubles the side to N, ``attentionN`` (or what stands in its place)
    follows ``upN`` where asked for, or stands instead of it, and ``out`` makes the image.

    Args:
        model: all but its width.
        image_size: S.
        width: see `channels_by_side`.
    """

    def __init__(self, model: ModelConfig, image_size: int, width: float) -> None:
        channels = channels_by_side(image_size, width)
        places = Places("generator", model, channels, norm="batch")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = model.z_dim
        for side, outputs in channels.items():
            stretch = {"stride": 1, "padding": 0} if side == 4 else {"stride": 2, "padding": 1}
            conv = nn.ConvTranspose2d(inputs, outputs, 4, **stretch)  # type: ignore[arg-type]
            up = nn.Sequential(
                OrderedDict(
                    conv=conv,
                    norm=nn.BatchNorm2d(outputs),
                    relu=nn.ReLU(inplace=True),
                )
            )
            came = None if side == 4 else (inputs, side // 2)
            layers.update(places.at(side, {f"up{side}": up}, came))
            inputs = outputs
        layers["out"] = nn.ConvTranspose2d(inputs, 3, 4, 2, 1)
        super().__init__(layers)
        norm_layers(self, model.spectral_norm.generator)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Return images (B, 3, S, S), float in (-1, 1), from noise (B, z_dim)."""
        images: Tensor = super().forward(z[:, :, None, None])  # type: ignore[no-untyped-call]
        return at_least_fp32(images).tanh()


class Discriminator(nn.Sequential):
    """Images to logits.

    Each ``downN`` (convolution 4 x 4 stride 2, leaky ReLU) halves the side to N down to 4,
    ``attentionN`` (or what stands in its place) follows ``downN`` where asked for, and
    ``out`` (4 x 4) makes the logit.

    With ``model.discriminator_sees`` halves, the left and the right half of an image are scored
    apart, with the same weights, and their logits averaged: D cannot tell whether they match.

    Args:
        model: all but its width.
        image_size: S.
        width: see `channels_by_side`.
        needs_double_backward: whether gradients of gradients will be taken.
    """

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
            down = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, outputs, 4, 2, 1),
                    relu=nn.LeakyReLU(LEAK, inplace=True),
                )
            )
            layers.update(places.at(side, {f"down{side}": down}, (inputs, 2 * side)))
            inputs = outputs
        # A half ends as 4 x 2, and the kernel is 4 x 4.
        beside = (0, 1) if model.discriminator_sees == "halves" else 0
        layers["out"] = nn.Conv2d(inputs, 1, 4, padding=beside)
        super().__init__(layers)
        norm_layers(self, model.spectral_norm.discriminator)
        self.sees = model.discriminator_sees

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return real-or-fake logits (B,), float, from images (B, 3, S, S) in [-1, 1]."""
        return logits_of(self.sees, self._logits, images, labels)

    def _logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return at_least_fp32(logits.flatten())


@FAMILIES.register("dcgan")
class Dcgan(Family):
    """Transposed convolutions up, convolutions down; without classes."""

    generator, discriminator = Generator, Discriminator

    def width_of_a_channel(self, image_size: int) -> float:
        """Return the width that adds one channel to the 4 x 4 map."""
        return 8 / image_size
