"""Networks like StyleGAN 2's (Karras et al. 2020), small: convolutions modulated by styles.

G's layers scale what comes in by a style that is mapped from z, and what goes out to unit variance;
D is residual, and sees by how much images of a group differ.  Left out are noise inputs, equalised
rates, style mixing and the path length penalty; the first map is made of the style.

    python cli.py ablate smoke --with examples/stylegan_like.py
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._pyramid import Pyramid
from sagan_bench.models.families.resnet import Down


class Styled(nn.Module):
    """leaky ReLU(a convolution of (s * x), demodulated), s a style, x at twice its side."""

    def __init__(self, inputs: int, outputs: int, styles: int) -> None:
        super().__init__()
        self.style = nn.Linear(styles, inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.empty(outputs, 1, 1))

    def reset_parameters(self) -> None:
        """Begin without bias: what no layer's rule fills is filled here."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Return (B, outputs, 2H, 2W) of x, (B, inputs, H, W)."""
        s, weight = 1 + self.style(styles), self.conv.weight
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear") * s[:, :, None, None]
        scale = (s.square() @ weight.square().sum((2, 3)).mT + 1e-8).rsqrt()
        h = F.conv2d(x, weight, padding=1) * scale[:, :, None, None]
        return F.leaky_relu(h + self.bias, 0.2)


class Judge(nn.Module):
    """Logits of a map, and of how much it differs within groups of up to 4 images in a row.

    Real and generated images of a batch of any multiple of 4 never share a group.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(inputs + 1, inputs, 3, padding=1), nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 1) of x, (B, inputs, H, W)."""
        groups = x.unflatten(0, (-1, math.gcd(len(x), 4)))
        spread = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
        spread = spread.repeat_interleave(groups.shape[1])[:, None, None, None]
        h = self.conv(torch.cat([x, spread.expand_as(x[:, :1])], 1))
        return self.out(F.leaky_relu(h, 0.2).mean((2, 3)))


@FAMILIES.register("stylegan-like")
class StyleGanLike(Pyramid):
    """StyleGAN 2's layers in pyramids of up to 8 widths."""

    most, deliberate = 8, ("batch statistics",)

    def mapping(self) -> nn.Module:
        """Return two layers."""
        z = self.config.z_dim
        return nn.Sequential(nn.Linear(z, z), nn.LeakyReLU(0.2), nn.Linear(z, z), nn.LeakyReLU(0.2))

    def up(self, inputs: int, outputs: int) -> nn.Module:
        """Return a modulated convolution."""
        return Styled(inputs, outputs, self.config.z_dim)

    down, judge = staticmethod(Down), staticmethod(Judge)
