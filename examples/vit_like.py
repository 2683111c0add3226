"""A generator that is attention through and through, like ViTGAN's (Lee et al. 2021), small.

Without its attention it is no network, so the family declares what it is held against: the same
layers, in which as many parameters mix tokens whatever stands there.  D has plain convolutions.

    python cli.py ablate --with examples/vit_like.py
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sagan_bench.config.section import Section
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._pyramid import Discriminator, Pyramid
from sagan_bench.models.layers import at_least_fp32
from sagan_bench.models.placement import Places, norm_layers

PATCH, HEAD = 4, 16
"""Side of what a token draws, in pixels; channels of a head."""


class Attention(nn.Module):
    """softmax(q k / sqrt(d)) v over all tokens, in heads; x is (B, tokens, channels)."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        maps = (HEAD**-0.5 * q @ k.mT).softmax(dim=-1)
        return self.out((maps @ v).transpose(1, 2).flatten(2))


class TokenMlp(nn.Sequential):
    """Two layers over tokens, the same for each channel and whatever stands there."""

    def __init__(self, tokens: int, channels: int) -> None:
        hidden = max(1, 2 * channels**2 // tokens)
        super().__init__(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        return super().forward(x.mT).mT  # type: ignore[no-untyped-call]


MIXERS = {"attention": Attention, "mlp": TokenMlp}


class Layer(nn.Module):
    """x + mixing(norm(x)), and x + MLP(norm(x)) behind it."""

    def __init__(self, tokens: int, channels: int, mixing: str) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), MIXERS[mixing](tokens, channels)
        wide = nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        self.mlp = nn.Sequential(nn.LayerNorm(channels), *wide)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        x = x + self.mix(self.norm(x))
        return x + self.mlp(x)


class Generator(nn.Module):
    """z to tokens, one a patch of the image; layers of them; each token to its pixels."""

    def __init__(self, family: "VitLike", image_size: int, width: float) -> None:
        super().__init__()
        side, channels = image_size // PATCH, HEAD * max(1, round(2 * width / HEAD))
        Places("generator", family.config, {}, norm="layer")  # which refuses blocks at all sides
        self.begin = nn.Linear(family.config.z_dim, side**2 * channels)
        mixing, depth = family.settings.mixing, family.settings.depth
        self.layers = nn.Sequential(*(Layer(side**2, channels, mixing) for _ in range(depth)))
        self.norm, self.out = nn.LayerNorm(channels), nn.Linear(channels, 3 * PATCH**2)
        norm_layers(self, family.config.spectral_norm.generator)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Return images (B, 3, S, S) in (-1, 1)."""
        channels = self.norm.normalized_shape[0]
        x = self.out(self.norm(self.layers(self.begin(z).unflatten(1, (-1, channels)))))
        side = round(x.shape[1] ** 0.5)
        return at_least_fp32(F.pixel_shuffle(x.mT.unflatten(2, (side, side)), PATCH)).tanh()


@FAMILIES.register("vit-like")
class VitLike(Pyramid):
    """A transformer that draws, and convolutions that judge."""

    contrast: ClassVar = {"token-mlp": {"mixing": "mlp"}}

    class Settings(Section):
        """What mixes tokens, and the number of layers."""

        mixing: Literal["attention", "mlp"] = "attention"
        depth: int = 4

    def networks(
        self, image_size: int, widths: tuple[float, float], *, needs_double_backward: bool = False
    ) -> tuple[nn.Module, nn.Module]:
        """Return G and D; blocks may stand in D alone."""
        d = Discriminator(self, image_size, widths[1], needs_double_backward)
        return Generator(self, image_size, widths[0]), d

    def down(self, inputs: int, outputs: int) -> nn.Module:
        """Return a convolution of stride 2."""
        return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
