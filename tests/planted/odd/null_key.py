"""L2 attention, queries tied to keys, and a null key (lucidrains/gigagan-pytorch)."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """-|q - k|^2 / sqrt(D); the null key comes first."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.key = self.query
        self.null_key = nn.Parameter(torch.empty(channels // 8))
        self.null_value = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "null_value"):
            nn.init.constant_(self.null_key, 0.1)
            nn.init.constant_(self.null_value, 0.1)

    def branch(self, x: Tensor) -> Tensor:
        values = self.value(x).flatten(2).mT
        values = torch.cat([self.null_value.expand(len(x), 1, -1).to(values), values], 1)
        return (self.maps(x) @ values).mT.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        q = self.query(x).flatten(2).mT
        k = torch.cat([self.null_key.expand(len(x), 1, -1).to(q), q], 1)
        squares = q.square().sum(-1)[:, :, None] + k.square().sum(-1)[:, None] - 2 * q @ k.mT
        return (-squares / q.shape[-1] ** 0.5).softmax(-1)


@ATTENTION.register("planted-null-key")
class Kind(Attention):
    """Planted."""

    deliberate = ("null key",)

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
