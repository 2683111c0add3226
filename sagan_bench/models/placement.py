"""Where blocks stand in a network, and which layers have spectral norm."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from sagan_bench.config.schema import AttentionConfig, SpectralNormed
from sagan_bench.core.errors import UserError
from sagan_bench.models.attention import Block
from sagan_bench.models.layers import Layer, spectral_norm


def sides_with_blocks(
    network: Literal["generator", "discriminator"],
    attention: AttentionConfig,
    channels: Mapping[int, int],
) -> tuple[int, ...]:
    """Return the sides of ``network`` that carry a block, after checking that they can.

    Args:
        network: which of the two.
        attention: where blocks were asked for, and of what kind.
        channels: of the network's feature maps, by side.

    Raises:
        UserError: a side that the network lacks, or one whose channels are no multiple of 8.
    """
    asked: tuple[int, ...] = getattr(attention, network)
    lacking = sorted(set(asked) - set(channels))
    if lacking:
        raise UserError(
            f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which the "
            f"{network} lacks; its feature maps have the sides "
            f"{', '.join(map(str, sorted(channels)))}"
        )
    placed = () if attention.kind == "wider" else asked
    for side in placed:
        if channels[side] % 8:
            raise UserError(
                f"model.attention.{network} = {side}: the map has {channels[side]} channels, and "
                "attention needs a multiple of 8; choose another model.width"
            )
    return placed


def normed_if(layer: Layer, normed: bool) -> Layer:
    """Return the layer, with spectral norm if ``normed``."""
    return spectral_norm(layer) if normed else layer


def normed_block(made: Block, normed: SpectralNormed) -> Block:
    """Return a block with spectral norm on its convolutions where every layer has it."""
    for layer in made.children():
        if isinstance(layer, nn.Conv2d):
            normed_if(layer, normed == "all")
    return made
