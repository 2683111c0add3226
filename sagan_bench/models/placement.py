"""Where blocks stand in a network, and which layers have spectral norm."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from sagan_bench.config.schema import AttentionConfig, SpectralNormed
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._blocks import Block
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
    requested: tuple[int, ...] = getattr(attention, network)
    lacking = sorted(set(requested) - set(channels))
    if lacking:
        raise UserError(
            f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which the "
            f"{network} lacks; its feature maps have the sides "
            f"{', '.join(map(str, sorted(channels)))}"
        )
    placed = requested if ATTENTION[attention.kind].has_block else ()
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


def block_at(
    side: int,
    channels: int,
    attention: AttentionConfig,
    normed: SpectralNormed,
    *,
    bias: bool = True,
    needs_double_backward: bool = False,
) -> tuple[str, Block]:
    """Return the block for a map, and its name in the network.

    It has spectral norm on its convolutions where every layer has it.

    Args:
        side: of the map.
        channels: C of the map, as `sides_with_blocks` has checked.
        attention: of what kind.
        normed: which layers of the network have spectral norm.
        bias: whether the block's convolutions have one.
        needs_double_backward: whether gradients of gradients will be taken.
    """
    kind = ATTENTION[attention.kind](attention)
    block: Block = kind.block(channels, bias=bias, needs_double_backward=needs_double_backward)
    for layer in block.children():
        if isinstance(layer, nn.Conv2d):
            normed_if(layer, normed == "all")
    return f"{kind.title}{side}", block
