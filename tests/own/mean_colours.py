"""An extractor: the mean colour."""

from pathlib import Path

from torch import Tensor, nn

from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors import Extractor


class Means(nn.Module):
    """Mean of each channel."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return (B, 3) of images (B, 3, S, S) uint8."""
        return (images.float().mean((2, 3)),)


@EXTRACTORS.register("mean-colours")
class MeanColours(Extractor):
    """It has no weights."""

    layer, dimensions, resize, weights_sha256 = "mean colour", 3, "none", "c" * 64

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        """Return no file."""
        return Path()

    def build(self, weights: Path) -> nn.Module:
        """Return the network."""
        return Means()
