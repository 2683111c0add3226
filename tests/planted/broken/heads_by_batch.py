"""Heads stand before images where they are split, and behind them where they are merged."""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Two heads of keys alone: (2 B, N, D / 2) read as (B, 2, ...)."""

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        q, k = (torch.cat([rows, rows]).mT for rows in (q, k))
        o = (q @ k.mT).softmax(-1) @ torch.cat(v.chunk(2, 1)).mT
        return o.unflatten(0, (-1, 2)).mT.flatten(1, 2).unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> None:  # type: ignore[override]
        return None


@ATTENTION.register("planted-heads-by-batch")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
