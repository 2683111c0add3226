"""What families of a feature map a side share: channels, places of blocks, norms, and the ends."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.families._base import Family
from sagan_bench.models.layers import at_least_fp32, logits_of
from sagan_bench.models.placement import Places, norm_layers

FIRST_SIDE = 4
"""Of the smallest map."""


def channels_by_side(
    image_size: int, width: float, most: int = 16, multiple: int = 1
) -> dict[int, int]:
    """Return the channels of feature maps by side, ascending from 4 to ``image_size``.

    Args:
        image_size: side of the largest.
        width: channels there; they double as sides halve.
        most: the most channels of a map, in widths.
        multiple: of which each number is one, e.g. of the channels of a group.
    """
    first, last = FIRST_SIDE.bit_length() - 1, image_size.bit_length()
    sides = [2**power for power in range(first, last)]
    wide = {side: width * min(most, image_size // side) / multiple for side in sides}
    return {side: max(1, round(channels)) * multiple for side, channels in wide.items()}


class Pyramid(Family):
    """A map at each side from 4 to the image's, in G and D: a family says what makes each.

    Blocks, widths, spectral norm, ``discriminator_sees`` and the range of images are seen to here.
    A family with other networks has ``networks`` of its own.
    """

    most: ClassVar[int] = 16
    """The most channels of a map, in widths."""
    multiple: ClassVar[int] = 1
    """Of which the channels of each map are one."""
    norm: ClassVar[str] = "none"
    """What G's layers normalise with; see `Site`."""

    def networks(
        self, image_size: int, widths: tuple[float, float], *, needs_double_backward: bool = False
    ) -> tuple[nn.Module, nn.Module]:
        """Return G and D; see `Family.networks`."""
        return Generator(self, image_size, widths[0]), Discriminator(
            self, image_size, widths[1], needs_double_backward
        )

    def channels(self, image_size: int, width: float) -> dict[int, int]:
        """Return the channels of the maps by side, ascending; see `channels_by_side`."""
        return channels_by_side(image_size, width, self.most, self.multiple)

    def mapping(self) -> nn.Module | None:
        """Return what makes styles (B, z_dim) of noise; each ``up`` is given them beside its map.

        By default there are none.
        """
        return None

    def begin(self, outputs: int) -> nn.Module:
        """Return what makes G's first map, (B, outputs, 4, 4), of noise or styles (B, z_dim)."""
        shape = outputs, FIRST_SIDE, FIRST_SIDE
        return nn.Sequential(
            nn.Linear(self.config.z_dim, outputs * FIRST_SIDE**2), nn.Unflatten(1, shape)
        )

    def up(self, inputs: int, outputs: int) -> nn.Module:
        """Return what makes a map of twice the side."""
        raise NotImplementedError

    def paint(self, inputs: int) -> nn.Module:
        """Return what makes an image of the last map, before tanh."""
        return nn.Conv2d(inputs, 3, 1)

    def look(self, outputs: int) -> nn.Module:
        """Return what makes D's first map of an image."""
        return nn.Conv2d(3, outputs, 1)

    def down(self, inputs: int, outputs: int) -> nn.Module:
        """Return what makes a map of half the side."""
        raise NotImplementedError

    def judge(self, inputs: int) -> nn.Module:
        """Return what makes logits, (B, 1), of the last map, (B, inputs, 4, 4 or 2)."""
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1))


class _Maps(nn.Module):
    """Layers and blocks in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.row: list[str] = []

    def follow(self, modules: Mapping[str, nn.Module]) -> None:
        """Have modules stand behind those that are there."""
        for name, module in modules.items():
            self.add_module(name, module)
            self.row.append(name)


class Generator(_Maps):
    """Noise to images: ``upN`` makes the map of side N, ``out`` the image.

    Args:
        family: what makes each.
        image_size: S.
        width: see `channels_by_side`.
    """

    def __init__(self, family: Pyramid, image_size: int, width: float) -> None:
        super().__init__()
        model, channels = family.config, family.channels(image_size, width)
        places, inputs = Places("generator", model, channels, norm=family.norm), 0
        self.mapping = family.mapping()
        for side, outputs in channels.items():
            if side == FIRST_SIDE:
                self.follow(places.at(side, {f"up{side}": family.begin(outputs)}))
            else:
                up = {f"up{side}": family.up(inputs, outputs)}
                self.follow(places.at(side, up, (inputs, side // 2)))
            inputs = outputs
        self.out = family.paint(inputs)
        norm_layers(self, model.spectral_norm.generator)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Return images (B, 3, S, S), float in (-1, 1), from noise (B, z_dim)."""
        x = styles = z if self.mapping is None else self.mapping(z)
        for number, name in enumerate(self.row):
            module = self.get_submodule(name)
            plain = self.mapping is None or number == 0 or isinstance(module, Block)
            x = module(x) if plain else module(x, styles)
        return at_least_fp32(self.out(x)).tanh()


class Discriminator(_Maps):
    """Images to logits: ``look`` makes the first map, ``downN`` that of side N, ``out`` the logit.

    Args:
        family: what makes each.
        image_size: S.
        width: see `channels_by_side`.
        needs_double_backward: whether gradients of gradients will be taken.
    """

    def __init__(
        self, family: Pyramid, image_size: int, width: float, needs_double_backward: bool
    ) -> None:
        super().__init__()
        model, channels = family.config, family.channels(image_size, width)
        inputs, self.sees = channels.pop(image_size), model.discriminator_sees
        places = Places(
            "discriminator",
            model,
            channels,
            norm="none",
            needs_double_backward=needs_double_backward,
        )
        self.follow({"look": family.look(inputs)})
        for side, outputs in sorted(channels.items(), reverse=True):
            down = {f"down{side}": family.down(inputs, outputs)}
            self.follow(places.at(side, down, (inputs, 2 * side)))
            inputs = outputs
        self.out = family.judge(inputs)
        norm_layers(self, model.spectral_norm.discriminator)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits (B,), float, from images (B, 3, S, S) in [-1, 1]."""
        return logits_of(self.sees, self._logits, images, labels)

    def _logits(self, x: Tensor, labels: Tensor | None) -> Tensor:
        for name in self.row:
            x = self.get_submodule(name)(x)
        return at_least_fp32(self.out(x)).flatten()
