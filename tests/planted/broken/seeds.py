"""It seeds torch for a draw of its own: noise and batches of the run are the same at each step."""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """In training it takes half of the keys, the same ones each time."""

    def branch(self, x: Tensor) -> Tensor:
        q, k = (layer(x).flatten(2).mT for layer in (self.query, self.key))
        if self.training:
            torch.manual_seed(0)
            kept = torch.rand(k.shape[1], device=k.device) < 0.5
            k = k * kept[:, None]
        maps = (q @ k.mT).softmax(-1)
        return (maps @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])


@ATTENTION.register("planted-seeds")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
