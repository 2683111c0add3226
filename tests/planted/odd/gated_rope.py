"""Queries and keys are turned by their place (axial RoPE), and o is gated before the last layer."""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """out(o * sigmoid(gate(x)))."""

    def __init__(self, channels: int, config: AttentionConfig) -> None:
        super().__init__(channels, config)
        self.query, self.key = (nn.Conv2d(channels, channels // 2, 1) for _ in range(2))
        self.gate, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(2))

    def turned(self, x: Tensor) -> Tensor:
        rows, columns = (torch.arange(side, device=x.device).to(x) for side in x.shape[2:])
        halves = x.unflatten(1, (2, 2, -1))
        pairs = []
        for pair, place in zip(halves.unbind(1), (rows[:, None], columns), strict=True):
            a, b = pair.unbind(1)
            turn = place * 0.1 ** torch.arange(a.shape[1], device=x.device)[:, None, None]
            pairs += [a * turn.cos() - b * turn.sin(), a * turn.sin() + b * turn.cos()]
        return torch.cat(pairs, 1).to(x.dtype).flatten(2).mT

    def branch(self, x: Tensor) -> Tensor:
        o = (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])
        return self.out(o * self.gate(x).sigmoid())

    def maps(self, x: Tensor) -> Tensor:
        q, k = self.turned(self.query(x)), self.turned(self.key(x))
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@ATTENTION.register("planted-gated-rope")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
