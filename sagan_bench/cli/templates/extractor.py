"""An extractor of my own: random convolutions, always the same, to be changed.

python cli.py check FILE        what must hold before figures mean anything
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors import Extractor


class Features(nn.Module):
    """Pixels to features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)  # weights are drawn here, and must be the same each time
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 2, 5, stride=2), nn.ReLU(),
            nn.Conv2d(width // 2, width, 5, stride=2), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, d), fp32, of images (B, 3, S, S), uint8; a second layer if any."""
        return (self.layers(images.float() / 255).mean(dim=(2, 3)),)


@EXTRACTORS.register("my-extractor")
class MyExtractor(Extractor):
    """What configurations and figures know: --extractor my-extractor, FID[my-extractor]."""

    layer, dimensions = "mean over positions", 64  # of the features, in every protocol
    resize = "none"  # how it reads pixels
    # weights_sha256 = "..."  # and `weights`, which returns their file, if it has any

    def build(self, weights: Path) -> nn.Module:
        """Return the network.  Its source counts as weights do: from another are other figures."""
        return Features(self.dimensions)
