"""A tiny extractor, pictures, and protocols of a few of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import register_feature_extractor

from sagan_bench.core.registry import Registry
from sagan_bench.data.pixels import normalise
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.measuring import default_metrics, measure
from sagan_bench.evaluation.metrics import Evidence
from sagan_bench.evaluation.protocol import Protocol


@contextmanager
def registered(registry: Registry[Any], name: str, component: type[Any]) -> Iterator[None]:
    """Have a component known by a name for a while."""
    registry.register(name)(component)
    try:
        yield
    finally:
        del registry._known[name]


class Filters(nn.Module):
    """Mean and deviation of 16 random filters, as ``pool``; ten logits."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.filters = nn.Parameter(torch.randn(16, 3, 5, 5, generator=generator) / 8)
        self.classes = nn.Parameter(torch.randn(32, 10, generator=generator) * scale)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = functional.conv2d((images.float() - 127) / 128, self.filters, stride=2).relu()
        pool = torch.cat([maps.mean((2, 3)), maps.flatten(2).std(dim=2)], dim=1)
        return pool, pool @ self.classes


class Tiny(Extractor):
    """A network of one layer; no registry knows it."""

    name = "tiny"
    layer, isc_layer, dimensions = "pool", "logits", 32
    resize, weights_sha256 = "none", "0" * 64
    SCALE = 1.0

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        return Path()

    def build(self, weights: Path) -> nn.Module:
        return Filters(self.SCALE)


class Wild(Tiny):
    """Its logits are so far apart that the inception score is 0 times infinity."""

    name = "wild"
    SCALE = 1e6


def pictures(n: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Return smooth random images, uint8 (n, 3, 16, 16); ``shift`` makes them brighter."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(noise, (16, 16), mode="bilinear", align_corners=False)
    return ((smooth + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def tiny(**changes: Any) -> Protocol:
    """Return a protocol of 120 generated against 200 real images."""
    fields: dict[str, Any] = Tiny.facts() | {
        "data": "smooth pictures",
        "split": "train",
        "n_real": 200,
        "n_fake": 120,
        "sampling_seed": 0,
        "label_law": "none",
        "weights": "raw",
        "ema_decay": None,
        "batchnorm": "running",
        "kid_subsets": 20,
    }
    return Protocol.fitted(**fields | changes)


EXTRACTOR = Tiny()
REAL, HELD_OUT = pictures(260, seed=1).numpy(), pictures(150, seed=2)
FAKE = pictures(120, seed=3, shift=0.1)


def sample(seed: int, start: int, stop: int) -> Tensor:
    """Return images that depend on (seed, index) alone."""
    return torch.stack([normalise(pictures(1, 1_000 * seed + i)[0]) for i in range(start, stop)])


def figures(
    fake: Tensor, pool: Tensor, protocol: Protocol, extractor: Extractor = EXTRACTOR
) -> dict[str, float | None]:
    """Return the figures of every score, of images against features of real ones."""
    evidence = Evidence(fake, protocol, extract(extractor, fake), pool)
    return measure(evidence, default_metrics())


ADAPTED = count()


def adapted(extractor: Extractor) -> str:
    """Return the name under which torch-fidelity knows an extractor from now on."""

    class Adapted(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.network = extractor.network

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            layers = dict(zip(("pool", "logits"), self.network(images), strict=True))
            return tuple(layers[layer] for layer in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "pool", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "pool"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

    name = f"adapted-{next(ADAPTED)}"
    register_feature_extractor(name, Adapted)
    return name
