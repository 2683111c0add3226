"""The paper's network: residual blocks, conditional BatchNorm in G, a projection of the class in D.

Source: SAGAN, arXiv 1805.08318, by its authors' code, brain-research/self-attention-gan at
ad9612e, whose layers, widths and numbers of parameters at 128 px these are.  Other sizes follow
from the same rule.  Exact equivalents, not departures: a shortcut's 1x1 convolution is applied on
the smaller of the two maps, before nearest upsampling and after mean pooling, with which it
commutes.  Departures: attention may sit at any feature-map side; spectral norm starts near its
limit, and is not iterated by an evaluation, nor in D by G's step.
"""

import operator
from collections.abc import Mapping
from itertools import accumulate
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._base import Family
from sagan_bench.models.layers import (
    ConditionalBatchNorm2d,
    at_least_fp32,
    logits_of,
    no_autocast,
)
from sagan_bench.models.placement import Places, norm_layers

MOST = 16
"""The most channels of a map in a pyramid, in widths."""
FIRST_SIDE = 4
"""Of G's first map."""

Layout = Literal["pyramid", "flat"]


def strides(image_size: int, layout: Layout) -> list[int]:
    """Return the strides of D's blocks, first to last.

    A pyramid goes down to side 4, where one more block follows.  ``flat`` goes down to side 8, with
    two more blocks: the residual networks of SNGAN (Miyato et al. 2018) for CIFAR-10.
    """
    last, more = (FIRST_SIDE, 1) if layout == "pyramid" else (2 * FIRST_SIDE, 2)
    halvings = (image_size // last).bit_length() - 1
    return [2] * halvings + [1] * more


def generator_channels(image_size: int, width: float, layout: Layout) -> dict[int, int]:
    """Return the channels of G's maps by side, ascending from 4 to ``image_size``.

    A pyramid has ``width`` at the image's side, doubling inwards up to 16 times it; a flat network
    has ``width`` everywhere.
    """
    sides = [2**power for power in range(FIRST_SIDE.bit_length() - 1, image_size.bit_length())]
    return {
        side: round(width * (1 if layout == "flat" else min(MOST, image_size // side)))
        for side in sides
    }


def discriminator_channels(image_size: int, width: float, layout: Layout) -> list[int]:
    """Return the channels behind each of D's blocks, first to last.

    A pyramid has ``width`` behind the first, doubling up to 16 times it; a flat network has half of
    ``width``, G's, everywhere.
    """
    count = len(strides(image_size, layout))
    if layout == "flat":
        return [round(width / 2)] * count
    return [round(width * min(MOST, 2**number)) for number in range(count)]


class Up(nn.Module):
    """A residual block that doubles the side: (norm, ReLU, up, conv, norm, ReLU, conv) + shortcut.

    Args:
        inputs: channels in.
        outputs: channels out, and between the convolutions.
        classes: of the norms; 0 for BatchNorm without classes.
    """

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm1 = _batchnorm(inputs, classes)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _batchnorm(outputs, classes)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None, *mix: Tensor) -> Tensor:
        """Return (B, outputs, 2H, 2W) from x, (B, inputs, H, W), and labels (B,) if conditional.

        ``mix``: the other labels and their share; see `ConditionalBatchNorm2d`.
        """
        classes = () if labels is None else (labels, *mix)
        h = _doubled(F.relu(self.norm1(x, *classes)))
        h = F.relu(self.norm2(self.conv1(h), *classes))
        return self.conv2(h) + _doubled(self.shortcut(x))


class Down(nn.Module):
    """A residual block of D: (ReLU, conv, ReLU, conv, mean pooling) + shortcut.

    Args:
        inputs: channels in.
        outputs: channels out, and between the convolutions.
        stride: 2 halves the side; 1 leaves it, and has no pooling.
        first: x is an image, which no ReLU comes before.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 2, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if changes else nn.Identity()
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride) from x, (B, inputs, H, W)."""
        h = x if self.first else F.relu(x)  # out of place: the shortcut reads x as it is
        h = self.conv2(F.relu(self.conv1(h), inplace=True))
        return self.pool(h) + self.shortcut(self.pool(x))


class Generator(nn.Module):
    """Noise, and a class, to images.

    ``up4`` (linear) makes a 4 x 4 map, each further ``upN`` (`Up`) doubles the side to N,
    ``attentionN`` (or what stands in its place) follows where asked for; then ``norm``, ReLU,
    and ``out`` makes the image.

    Args:
        model: all but its width.
        image_size: S.
        width: see `generator_channels`.
    """

    def __init__(self, model: ModelConfig, image_size: int, width: float) -> None:
        super().__init__()
        channels = generator_channels(image_size, width, model.layout)
        norm = "conditional batch" if model.classes else "batch"
        places = Places("generator", model, channels, norm=norm, bias=False)
        inputs, self.blocks = channels[FIRST_SIDE], list[str]()
        for side, outputs in channels.items():
            if side == FIRST_SIDE:
                self.up4 = nn.Linear(model.z_dim, outputs * side * side)
                self._follow(places.at(side, {}))
            else:
                up = Up(inputs, outputs, model.classes)
                self._follow(places.at(side, {f"up{side}": up}, (inputs, side // 2)))
            inputs = outputs
        self.norm = nn.BatchNorm2d(inputs)
        self.out = nn.Conv2d(inputs, 3, 3, padding=1)
        norm_layers(self, model.spectral_norm.generator)

    def _follow(self, modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            self.add_module(name, module)
            self.blocks.append(name)

    def forward(self, z: Tensor, labels: Tensor | None = None, *mix: Tensor) -> Tensor:
        """Return images (B, 3, S, S), float in (-1, 1), from z (B, z_dim) and labels (B,).

        ``mix``: the other labels and their share, between classes; see `ConditionalBatchNorm2d`.
        """
        h = self.up4(z).unflatten(1, (FIRST_SIDE, FIRST_SIDE, -1)).permute(0, 3, 1, 2)
        for name in self.blocks:
            module = self.get_submodule(name)
            h = module(h, labels, *mix) if isinstance(module, Up) else module(h)
        return at_least_fp32(self.out(F.relu(self.norm(h)))).tanh()


class Discriminator(nn.Module):
    """Images, and a class, to logits.

    Each ``downN`` (`Down`) halves the side to N, ``stayN`` (``stayN_2``) leaves it there, and
    ``attentionN`` (or what stands in its place) follows ``downN`` where asked for.  With h
    the sum of ReLU over all positions, the logit is ``out``(h) + <``embed``(class), h> (Miyato and
    Koyama 2018).

    With ``model.discriminator_sees`` halves, the left and the right half of an image are scored
    apart, with the same weights, and their logits averaged: D cannot tell whether they match.

    Args:
        model: all but its width.
        image_size: S.
        width: see `discriminator_channels`.
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
        super().__init__()
        self.sees = model.discriminator_sees
        steps = strides(image_size, model.layout)
        channels = discriminator_channels(image_size, width, model.layout)
        layout = list(zip(_sides(image_size, steps), channels, steps, strict=True))
        places = Places(
            "discriminator",
            model,
            {side: outputs for side, outputs, stride in layout if stride > 1},
            norm="none",
            bias=False,
            needs_double_backward=needs_double_backward,
        )
        inputs, self.blocks = 3, list[str]()
        for side, outputs, stride in layout:
            name = f"down{side}" if stride > 1 else f"stay{side}"
            name = f"{name}_2" if name in self.blocks else name
            down = {name: Down(inputs, outputs, stride, inputs == 3)}
            halves = stride > 1  # else another layer of its side is behind it
            self._follow(places.at(side, down, (inputs, stride * side)) if halves else down)
            inputs = outputs
        self.out = nn.Linear(inputs, 1)
        if model.classes:
            self.embed = nn.Embedding(model.classes, inputs)
        norm_layers(self, model.spectral_norm.discriminator, last=("out", "embed"))

    def _follow(self, modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            self.add_module(name, module)
            self.blocks.append(name)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return real-or-fake logits (B,), float, from images (B, 3, S, S) and labels (B,)."""
        return logits_of(self.sees, self._logits, images, labels)

    def _logits(self, h: Tensor, labels: Tensor | None) -> Tensor:
        for name in self.blocks:
            h = self.get_submodule(name)(h)
        h = at_least_fp32(F.relu(h)).sum(dim=(2, 3))
        with no_autocast(h.device.type):
            logits: Tensor = self.out(h).squeeze(1)
            if labels is not None:
                logits = logits + (self.embed(labels) * h).sum(dim=1)
        return logits


def _sides(image_size: int, strides: list[int]) -> list[int]:
    """Return the side of the map behind each block."""
    return [image_size // scale for scale in accumulate(strides, operator.mul)]


def _batchnorm(channels: int, classes: int) -> nn.Module:
    return ConditionalBatchNorm2d(channels, classes) if classes else nn.BatchNorm2d(channels)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@FAMILIES.register("resnet")
class Resnet(Family):
    """Residual blocks, with or without classes."""

    generator, discriminator = Generator, Discriminator

    knows = ("classes", "layout")

    def width_of_a_channel(self, image_size: int) -> float:
        """Return the width that adds a channel to the map of most channels."""
        return 2.0 if self.config.layout == "flat" else 1 / MOST
