"""Where blocks stand in a network, and which layers have spectral norm."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.layers import Layer, spectral_norm


def blocks_by_side(
    network: Literal["generator", "discriminator"],
    model: ModelConfig,
    channels: Mapping[int, int],
    *,
    bias: bool = True,
    needs_double_backward: bool = False,
) -> dict[int, tuple[str, Block]]:
    """Return each block of ``network`` with its name there, by the side of the map it follows.

    Its convolutions have spectral norm where every layer of the network has it.

    Args:
        network: which of the two.
        model: what stands where.
        channels: of the network's feature maps, by side.
        bias: whether the convolutions of blocks have one.
        needs_double_backward: whether gradients of gradients will be taken.

    Raises:
        UserError: a side that the network lacks, or one whose channels are no multiple of 8.
    """
    sides: tuple[int, ...] = getattr(model.attention, network)
    lacking = sorted(set(sides) - set(channels))
    if lacking:
        raise UserError(
            f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which the "
            f"{network} lacks; its feature maps have the sides "
            f"{', '.join(map(str, sorted(channels)))}"
        )
    kind = ATTENTION[model.attention.kind](model.attention)
    blocks: dict[int, tuple[str, Block]] = {}
    for side in sides if kind.has_block else ():
        if channels[side] % 8:
            raise UserError(
                f"model.attention.{network} = {side}: the map has {channels[side]} channels, and "
                "attention needs a multiple of 8; choose another model.width"
            )
        block = kind.block(channels[side], bias=bias, needs_double_backward=needs_double_backward)
        for layer in block.children():
            if isinstance(layer, nn.Conv2d):
                normed_if(layer, getattr(model.spectral_norm, network) == "all")
        blocks[side] = f"{kind.title}{side}", block
    return blocks


def normed_if(layer: Layer, normed: bool) -> Layer:
    """Return the layer, with spectral norm if ``normed``."""
    return spectral_norm(layer) if normed else layer
