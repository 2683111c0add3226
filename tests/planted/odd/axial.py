"""Attention along rows, then along columns of what that gave; it has no maps (Ho et al. 2019)."""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """Each position has seen all, by two softmaxes."""

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        along = torch.einsum("bdhi,bdhj->bhij", q, k).softmax(-1)
        o = torch.einsum("bhij,bvhj->bvhi", along, v)
        across = torch.einsum("bdiw,bdjw->bwij", q, k).softmax(-1)
        return torch.einsum("bwij,bvjw->bviw", across, o)

    def maps(self, x: Tensor) -> None:  # type: ignore[override]
        return None


@ATTENTION.register("planted-axial")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
