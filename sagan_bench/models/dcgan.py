"""The seed project's network: DCGAN with spectral norm and self-attention at chosen sides.

Source: heykeetae/Self-Attention-GAN at 8714a54.  Departures: attention may sit at any feature-map
side, other image sizes, spectral norm on every convolution by default, and the flattening that
`sagan_bench.models.layers.SpectralNorm` names.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from sagan_bench.config import ModelConfig, SpectralNormed
from sagan_bench.errors import UserError
from sagan_bench.models.attention import SelfAttention
from sagan_bench.models.layers import Convolution, spectral_norm

LEAK = 0.1
"""Negative slope of D's leaky ReLU, the seed project's."""


def sides(image_size: int) -> list[int]:
    """Return the sides of the hidden feature maps, ascending: 4, 8, ... image_size / 2."""
    return [2**power for power in range(2, image_size.bit_length() - 1)]


def channels_by_side(image_size: int, width: int) -> dict[int, int]:
    """Return the channels at each side: ``width`` at the largest map, doubling inwards.

    G and D mirror each other.
    """
    return {side: width * image_size // (2 * side) for side in sides(image_size)}


class Generator(nn.Sequential):
    """Noise to images.

    ``up4`` makes a 4 x 4 map, each further ``upN`` (transposed convolution 4 x 4 stride 2,
    BatchNorm, ReLU) doubles the side to N, ``attentionN`` follows ``upN`` where asked for, and
    ``out`` makes the image.
    """

    def __init__(
        self,
        *,
        image_size: int,
        width: int,
        z_dim: int,
        attention: Sequence[int],
        normed: SpectralNormed,
    ) -> None:
        channels = channels_by_side(image_size, width)
        _check_sides("generator", attention, channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = z_dim
        for side, outputs in channels.items():
            stretch = {"stride": 1, "padding": 0} if side == 4 else {"stride": 2, "padding": 1}
            conv = nn.ConvTranspose2d(inputs, outputs, 4, **stretch)  # type: ignore[arg-type]
            layers[f"up{side}"] = nn.Sequential(
                OrderedDict(
                    conv=_normed(conv, normed != "none"),
                    norm=nn.BatchNorm2d(outputs),
                    relu=nn.ReLU(inplace=True),
                )
            )
            if side in attention:
                layers[f"attention{side}"] = _attention(outputs, normed)
            inputs = outputs
        layers["out"] = _normed(nn.ConvTranspose2d(inputs, 3, 4, 2, 1), normed == "all")
        super().__init__(layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return images (B, 3, S, S), float in (-1, 1), from noise (B, z_dim)."""
        images: Tensor = super().forward(z[:, :, None, None])  # type: ignore[no-untyped-call]
        return images.float().tanh()


class Discriminator(nn.Sequential):
    """Images to logits.

    Each ``downN`` (convolution 4 x 4 stride 2, leaky ReLU) halves the side to N down to 4,
    ``attentionN`` follows ``downN`` where asked for, and ``out`` (4 x 4) makes the logit.
    """

    def __init__(
        self,
        *,
        image_size: int,
        width: int,
        attention: Sequence[int],
        normed: SpectralNormed,
        needs_double_backward: bool = False,
    ) -> None:
        channels = channels_by_side(image_size, width)
        _check_sides("discriminator", attention, channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for side, outputs in sorted(channels.items(), reverse=True):
            layers[f"down{side}"] = nn.Sequential(
                OrderedDict(
                    conv=_normed(nn.Conv2d(inputs, outputs, 4, 2, 1), normed != "none"),
                    relu=nn.LeakyReLU(LEAK, inplace=True),
                )
            )
            if side in attention:
                layers[f"attention{side}"] = _attention(outputs, normed, needs_double_backward)
            inputs = outputs
        layers["out"] = _normed(nn.Conv2d(inputs, 1, 4), normed == "all")
        super().__init__(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return real-or-fake logits (B,), float, from images (B, 3, S, S) in [-1, 1]."""
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits.flatten().float()


def networks(
    model: ModelConfig, image_size: int, *, needs_double_backward: bool = False
) -> tuple[Generator, Discriminator]:
    """Return G and D of a configuration, not yet initialised.

    ``needs_double_backward``: D's gradient will be differentiated again (gradient penalties).

    Raises:
        UserError: attention at a side that the network lacks, or at one too narrow for C / 8.
    """
    generator = Generator(
        image_size=image_size,
        width=model.width,
        z_dim=model.z_dim,
        attention=model.attention.generator,
        normed=model.spectral_norm.generator,
    )
    discriminator = Discriminator(
        image_size=image_size,
        width=model.width,
        attention=model.attention.discriminator,
        normed=model.spectral_norm.discriminator,
        needs_double_backward=needs_double_backward,
    )
    return generator, discriminator


def _check_sides(network: str, asked: Sequence[int], channels: dict[int, int]) -> None:
    lacking = sorted(set(asked) - set(channels))
    if lacking:
        raise UserError(
            f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which the "
            f"{network} lacks; its feature maps have the sides {', '.join(map(str, channels))}"
        )
    for side in asked:
        if channels[side] % 8:
            raise UserError(
                f"model.attention.{network} = {side}: the map has {channels[side]} channels, and "
                "attention needs a multiple of 8; choose model.width as a multiple of 8"
            )


def _normed(layer: Convolution, normed: bool) -> Convolution:
    return spectral_norm(layer) if normed else layer


def _attention(
    channels: int, normed: SpectralNormed, needs_double_backward: bool = False
) -> SelfAttention:
    block = SelfAttention(channels, needs_double_backward=needs_double_backward)
    if normed == "all":
        for layer in (block.query, block.key, block.value):
            spectral_norm(layer)
    return block
