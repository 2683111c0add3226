"""A query of its own for each class; a network without classes is refused."""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class Odd(Block):
    """o = value(x) * softmax over positions of <embed(y), key(x)>, for each channel alike."""

    def __init__(self, site: Site, config: AttentionConfig) -> None:
        super().__init__(config)
        if not site.classes:
            raise ValueError("it needs classes: model.architecture = resnet, model.classes")
        self.embed = nn.Embedding(site.classes, site.channels // 8)
        self.weigh = nn.Conv2d(site.channels, site.channels // 8, 1, bias=False)
        self.content = nn.Conv2d(site.channels, site.channels, 1, bias=site.bias)

    def branch(self, x: Tensor) -> Tensor:
        query = self.embed(self.call.labels)[:, None]  # (B, 1, D)
        weights = (query @ self.weigh(x).flatten(2).to(query.dtype)).softmax(-1)
        pooled = weights @ self.content(x).flatten(2).mT.to(query.dtype)
        return pooled.mT[..., None]


@ATTENTION.register("planted-class-conditional")
class Kind(Attention):
    """Planted."""

    knows = ("labels",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site, self.config)
