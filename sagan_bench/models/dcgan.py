"""The seed project's network: DCGAN with spectral norm and self-attention at chosen sides.

Source: heykeetae/Self-Attention-GAN at 8714a54.  Departures: attention may sit at any feature-map
side, other image sizes, spectral norm on every convolution by default, and the flattening that
`sagan_bench.models.layers.SpectralNorm` names.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from sagan_bench.config import AttentionConfig, ModelConfig, SpectralNormConfig, SpectralNormed
from sagan_bench.errors import UserError
from sagan_bench.models.attention import Block, block
from sagan_bench.models.layers import Convolution, forward_flops, spectral_norm

LEAK = 0.1
"""Negative slope of D's leaky ReLU, the seed project's."""

NO_SPECTRAL_NORM = SpectralNormConfig(generator="none", discriminator="none")


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
    BatchNorm, ReLU) doubles the side to N, ``attentionN`` (or what `block` puts in its place)
    follows ``upN`` where asked for, and ``out`` makes the image.

    Args:
        channels: by side, ascending; see `channels_by_side`.
        z_dim: components of the noise.
        attention: where, and what kind.
        normed: which convolutions have spectral norm.
    """

    def __init__(
        self,
        *,
        channels: Mapping[int, int],
        z_dim: int,
        attention: AttentionConfig,
        normed: SpectralNormed,
    ) -> None:
        placed = _placed("generator", attention, channels)
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
            if side in placed:
                made = _normed_block(block(outputs, attention), normed)
                layers[f"{made.title}{side}"] = made
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
    ``attentionN`` (or what `block` puts in its place) follows ``downN`` where asked for, and
    ``out`` (4 x 4) makes the logit.

    Args:
        channels: by side; see `channels_by_side`.
        attention: where, and what kind.
        normed: which convolutions have spectral norm.
        sees: with ``halves`` the left and the right half of an image are scored apart, with the
            same weights, and their logits averaged: D cannot tell whether they match.
        needs_double_backward: whether gradients of gradients will be taken.
    """

    def __init__(
        self,
        *,
        channels: Mapping[int, int],
        attention: AttentionConfig,
        normed: SpectralNormed,
        sees: Literal["whole", "halves"] = "whole",
        needs_double_backward: bool = False,
    ) -> None:
        placed = _placed("discriminator", attention, channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for side, outputs in sorted(channels.items(), reverse=True):
            layers[f"down{side}"] = nn.Sequential(
                OrderedDict(
                    conv=_normed(nn.Conv2d(inputs, outputs, 4, 2, 1), normed != "none"),
                    relu=nn.LeakyReLU(LEAK, inplace=True),
                )
            )
            if side in placed:
                made = block(outputs, attention, needs_double_backward=needs_double_backward)
                layers[f"{made.title}{side}"] = _normed_block(made, normed)
            inputs = outputs
        beside = (0, 1) if sees == "halves" else 0  # a half ends as 4 x 2, and the kernel is 4 x 4
        layers["out"] = _normed(nn.Conv2d(inputs, 1, 4, padding=beside), normed == "all")
        super().__init__(layers)
        self.sees = sees

    def forward(self, images: Tensor) -> Tensor:
        """Return real-or-fake logits (B,), float, from images (B, 3, S, S) in [-1, 1]."""
        if self.sees == "halves":
            left, right = images.chunk(2, dim=3)
            left_logits, right_logits = self._logits(torch.cat([left, right])).chunk(2)
            return (left_logits + right_logits) / 2
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
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
    return _networks(model, image_size, *widths(model, image_size), needs_double_backward)


@cache
def widths(model: ModelConfig, image_size: int) -> tuple[float, float]:
    """Return the widths of G and D: as configured, or, for the control ``wider``, by FLOPs.

    Each network then has the width at which its forward pass costs as nearly as many FLOPs as with
    ``full`` attention as channels of the 4 x 4 map, added one at a time, allow.

    Raises:
        UserError: as `networks`.
    """
    width = model.width * model.width_factor
    if model.attention.kind != "wider":
        return width, width
    full = model.attention.model_copy(update={"kind": "full"})
    targets = _forward_flops(model.model_copy(update={"attention": full}), image_size, width)
    wider = [width + 8 * added / image_size for added in range(2 * image_size * width)]

    def nearest(network: int) -> float:
        def excess(width: float) -> int:
            return _forward_flops(model, image_size, width)[network] - targets[network]

        reached = bisect_left(wider, 0, key=excess)
        return min(wider[max(0, reached - 1) : reached + 1], key=lambda width: abs(excess(width)))

    return nearest(0), nearest(1)


def _networks(
    model: ModelConfig,
    image_size: int,
    width_g: float,
    width_d: float,
    needs_double_backward: bool = False,
) -> tuple[Generator, Discriminator]:
    generator = Generator(
        channels=channels_by_side(image_size, width_g),
        z_dim=model.z_dim,
        attention=model.attention,
        normed=model.spectral_norm.generator,
    )
    discriminator = Discriminator(
        channels=channels_by_side(image_size, width_d),
        attention=model.attention,
        normed=model.spectral_norm.discriminator,
        sees=model.discriminator_sees,
        needs_double_backward=needs_double_backward,
    )
    return generator, discriminator


def _forward_flops(model: ModelConfig, image_size: int, width: float) -> tuple[int, int]:
    """Return the FLOPs of a forward pass of one image through G and D, without spectral norms."""
    plain = model.model_copy(update={"spectral_norm": NO_SPECTRAL_NORM})
    with torch.device("meta"):
        generator, discriminator = _networks(plain, image_size, width, width)
        z, images = torch.zeros(1, model.z_dim), torch.zeros(1, 3, image_size, image_size)
        return forward_flops(generator, z), forward_flops(discriminator, images)


def _placed(
    network: Literal["generator", "discriminator"],
    attention: AttentionConfig,
    channels: Mapping[int, int],
) -> tuple[int, ...]:
    """Return the sides of ``network`` that carry a block, after checking that they can."""
    asked: tuple[int, ...] = getattr(attention, network)
    lacking = sorted(set(asked) - set(channels))
    if lacking:
        raise UserError(
            f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which the "
            f"{network} lacks; its feature maps have the sides {', '.join(map(str, channels))}"
        )
    placed = () if attention.kind == "wider" else asked
    for side in placed:
        if channels[side] % 8:
            raise UserError(
                f"model.attention.{network} = {side}: the map has {channels[side]} channels, and "
                "attention needs a multiple of 8; choose model.width as a multiple of 8"
            )
    return placed


def _normed(layer: Convolution, normed: bool) -> Convolution:
    return spectral_norm(layer) if normed else layer


def _normed_block(made: Block, normed: SpectralNormed) -> Block:
    for layer in made.children():
        if isinstance(layer, Convolution):
            _normed(layer, normed == "all")
    return made
