"""Windows of 4 x 4 are shifted, and o is rolled once more the same way (Swin, the sign lost)."""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Planted(SelfAttention):
    """Attention within windows, shifted by 2 cyclically; it has no maps."""

    def branch(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        shift = 2 if min(rows, columns) > 4 else 0
        rolled = torch.roll(x, (-shift, -shift), (2, 3))
        q, k, v = (self.windows(layer(rolled)) for layer in (self.query, self.key, self.value))
        o = ((q @ k.mT).softmax(-1) @ v).unflatten(0, (-1, rows // 4, columns // 4))
        o = o.unflatten(3, (4, 4)).permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, rows, columns)
        return torch.roll(o, (-shift, -shift), (2, 3))

    def windows(self, x: Tensor) -> Tensor:
        rows = x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 3, 5, 1)
        return rows.flatten(3, 4).flatten(0, 2)

    def maps(self, x: Tensor) -> None:  # type: ignore[override]
        return None


@ATTENTION.register("planted-rolled-twice")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Planted(site.channels, self.config)
