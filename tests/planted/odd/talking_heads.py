"""Heads are mixed before the softmax and after it, and know relative positions (Shazeer 2020)."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Maps are (B, 2, N, M), as the softmax made them."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        if channels < 16:
            raise ValueError(f"two heads need 16 channels; got {channels}")
        self.before, self.after = (nn.Parameter(torch.empty(2, 2)) for _ in range(2))
        self.bias = nn.Parameter(torch.empty(2, 31, 31))
        self.out = nn.Conv2d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "bias"):
            nn.init.eye_(self.before)
            nn.init.eye_(self.after)
            nn.init.zeros_(self.bias)

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (2, -1)).mT

    def relative(self, rows: int, columns: int) -> Tensor:
        dy, dx = (torch.arange(n)[:, None] - torch.arange(n) + 15 for n in (rows, columns))
        bias = self.bias[:, dy[:, None, :, None], dx[None, :, None, :]]
        return bias.flatten(3, 4).flatten(1, 2)

    def branch(self, x: Tensor) -> Tensor:
        mixed = torch.einsum("bhnm,hg->bgnm", self.maps(x), self.after)
        o = mixed.to(x.dtype) @ self.split(self.value(x))
        return self.out(o.mT.flatten(1, 2).unflatten(2, x.shape[2:]))

    def maps(self, x: Tensor) -> Tensor:
        products = self.split(self.query(x)) @ self.split(self.key(x)).mT
        products = torch.einsum("bhnm,hg->bgnm", products, self.before)
        return (products + self.relative(*x.shape[2:])).softmax(-1)


@ATTENTION.register("planted-talking-heads")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
