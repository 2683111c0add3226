"""Windows of 4 x 4, shifted by 2, masked where they wrap around (Swin)."""

import torch
from torch import Tensor

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """A layer is given the windows, (B * W, C, 4, 4); the maps are those of whole rows."""

    def cut(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        shift = 2 if rows > 4 else 0, 2 if columns > 4 else 0
        x = torch.roll(x, (-shift[0], -shift[1]), (2, 3))
        x = x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 1, 3, 5)
        return x.flatten(0, 2)

    def join(self, windows: Tensor, rows: int, columns: int) -> Tensor:
        x = windows.unflatten(0, (-1, rows // 4, columns // 4)).permute(0, 3, 1, 4, 2, 5)
        shift = 2 if rows > 4 else 0, 2 if columns > 4 else 0
        return torch.roll(x.flatten(4, 5).flatten(2, 3), shift, (2, 3))

    def within(self, x: Tensor) -> Tensor:
        windows = self.cut(x)
        q, k = (layer(windows).flatten(2).mT for layer in (self.query, self.key))
        row, column = torch.arange(x.shape[2]), torch.arange(x.shape[3])
        part = (row < 2)[:, None] * 2 + (column < 2)  # which come from the other side
        part = self.cut(part[None, None].to(x)).flatten(2).repeat(len(x), 1, 1)
        return (q @ k.mT - 100 * (part.mT - part).abs()).softmax(-1)

    def branch(self, x: Tensor) -> Tensor:
        values = self.value(self.cut(x)).flatten(2).mT
        o = (self.within(x) @ values).mT.unflatten(2, (4, 4))
        return self.join(o, *x.shape[2:])

    def maps(self, x: Tensor) -> Tensor:
        count = x[0, 0].numel()
        place = torch.arange(count, device=x.device).view(1, 1, *x.shape[2:])
        places = self.cut(place).flatten(1)
        beta = self.within(x).unflatten(0, (len(x), -1))
        maps = beta.new_zeros(len(x), count, count)
        for window, at in enumerate(places):
            maps[:, at[:, None], at] = beta[:, window]
        return maps


@ATTENTION.register("planted-shifted-windows")
class Kind(Attention):
    """Planted."""

    positions = True

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
