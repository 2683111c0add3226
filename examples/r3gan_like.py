"""Networks like R3GAN's (Huang et al. 2024), small: residual, and without any normalisation.

Grouped convolutions between pointwise ones, bilinear resampling, and residuals that begin at
nothing, in place of fix-up initialisation.  With its own loss, and without spectral norm:

    python cli.py ablate smoke --with examples/r3gan_like.py --with examples/relativistic.py \
        --set model.spectral_norm.generator=none --set model.spectral_norm.discriminator=none
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._pyramid import Pyramid

GROUP = 8
"""Channels of a group."""


class Residual(nn.Module):
    """y = x + gain * (pointwise, grouped, pointwise)(x), x resampled; gain begins at 0."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale, wide = scale, 2 * outputs
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.convs = nn.Sequential(
            nn.Conv2d(outputs, wide, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide // GROUP), nn.LeakyReLU(0.2),
            nn.Conv2d(wide, outputs, 1, bias=False),
        )  # fmt: skip
        self.gain = nn.Parameter(torch.empty(()))

    def reset_parameters(self) -> None:
        """Begin as the shortcut alone."""
        nn.init.zeros_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, scale * H, scale * W) of x, (B, inputs, H, W)."""
        x = self.skip(F.interpolate(x, scale_factor=self.scale, mode="bilinear"))
        return x + self.gain * self.convs(x)


@FAMILIES.register("r3gan-like")
class R3GanLike(Pyramid):
    """Residuals up and down, in pyramids of up to 8 widths."""

    most, multiple = 8, GROUP

    def up(self, inputs: int, outputs: int) -> nn.Module:
        """Return a residual at twice the side."""
        return Residual(inputs, outputs, 2.0)

    def down(self, inputs: int, outputs: int) -> nn.Module:
        """Return a residual at half the side."""
        return Residual(inputs, outputs, 0.5)
