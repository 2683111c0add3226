"""Where blocks stand in a network, and which layers have spectral norm."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

from torch import nn

from sagan_bench.config.schema import ModelConfig, SpectralNormed
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.layers import Weighted, spectral_norm
from sagan_bench.models.placed import Network, Site

PLACES = ("after", "instead")


class Places:
    """The places of blocks in a network: a family asks at each side what stands there.

    Args:
        network: which of the two.
        model: what stands where.
        channels: of the network's feature maps, by side.
        norm: what its layers normalise with; see `Site`.
        bias: whether the convolutions of blocks have one.
        needs_double_backward: whether gradients of gradients will be taken.

    Raises:
        UserError: a side that the network lacks, or a kind that stands at no known place.
    """

    def __init__(
        self,
        network: Network,
        model: ModelConfig,
        channels: Mapping[int, int],
        *,
        norm: str,
        bias: bool = True,
        needs_double_backward: bool = False,
    ) -> None:
        self.network, self.model, self.channels = network, model, channels
        self.kind: Attention = ATTENTION[model.attention.kind](model.attention)
        self.sides: tuple[int, ...] = getattr(model.attention, network)
        if self.kind.place not in PLACES:
            raise UserError(
                f"{self.kind.name}: place = {self.kind.place!r}; {closest(self.kind.place, PLACES)}"
            )
        if lacking := sorted(set(self.sides) - set(channels)):
            raise UserError(
                f"model.attention.{network} asks for side {', '.join(map(str, lacking))}, which "
                f"the {network} lacks; its feature maps have the sides "
                f"{', '.join(map(str, sorted(channels))) or '(none)'}"
            )
        self._nowhere = Site(
            network,
            side=0,
            channels=0,
            bias=bias,
            norm=norm,
            z_dim=model.z_dim,
            classes=model.classes,
            needs_double_backward=needs_double_backward,
            halves=network == "discriminator" and model.discriminator_sees == "halves",
        )

    def at(
        self, side: int, layers: Mapping[str, nn.Module], came: tuple[int, int] | None = None
    ) -> dict[str, nn.Module]:
        """Return what stands at a side, by name: the layers, a block after them or instead of them.

        Args:
            side: of the map that the layers make.
            layers: that make it.
            came: channels and side of the map that they make it of; None where they make it of
                none, so that no block can stand instead of them.

        Raises:
            UserError: the block cannot stand there.
        """
        if side not in self.sides or not self.kind.has_block:
            return dict(layers)
        if self.kind.place == "after":
            return {**layers, f"{self.kind.title}{side}": self._block(side)}
        if came is None:
            raise UserError(
                f"model.attention.{self.network} = {side}: {self.kind.name} stands instead of a "
                f"layer, and no feature map comes to the first one; choose another side"
            )
        return {f"{self.kind.title}{side}": self._block(side, *came)}

    def _block(self, side: int, channels_in: int = 0, side_in: int = 0) -> Block:
        """Return the block of a side, with spectral norm where every layer of the network has it.

        Raises:
            UserError: its channels are no multiple of 8, or are refused by the block.
        """
        channels, kind = self.channels[side], self.kind
        if channels % 8:
            raise UserError(
                f"model.attention.{self.network} = {side}: the map has {channels} channels, and "
                "attention needs a multiple of 8; choose another model.width"
            )
        site = replace(
            self._nowhere, side=side, channels=channels, channels_in=channels_in, side_in=side_in
        )
        try:
            block = kind.block(site)
        except ValueError as error:
            at = f"model.attention.{self.network} = {side}, {channels} channels"
            raise UserError(f"{at}: {kind.name} cannot stand there: {error}") from error
        block.stand_at(site, kind.knows, replaces=kind.place == "instead")
        all_normed = getattr(self.model.spectral_norm, self.network) == "all"
        if all_normed and not kind.own_spectral_norm:
            for layer in [each for each in block.modules() if isinstance(each, Weighted)]:
                spectral_norm(cast(nn.Linear, layer))
        return block


def norm_layers(
    network: nn.Module, normed: SpectralNormed, last: Collection[str] = ("out",)
) -> None:
    """Put spectral norm on the layers of a network that have none, as is asked for.

    Blocks are left as they are: `Places` has seen to them.

    Args:
        network: all of whose layers are there.
        normed: ``all``; ``hidden`` leaves out the ``last``; or ``none``.
        last: names of the layers that make the result.
    """
    of_blocks = {
        id(layer)
        for block in network.modules()
        if isinstance(block, Block)
        for layer in block.modules()
    }
    for name, layer in list(network.named_modules()):
        is_last = name.partition(".")[0] in last
        wanted = normed == "all" or (normed == "hidden" and not is_last)
        if wanted and isinstance(layer, Weighted) and id(layer) not in of_blocks:
            spectral_norm(cast(nn.Linear, layer))
