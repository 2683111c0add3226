r"""What a query takes in, by where it comes from: maps weighted by the values that they sum.

A key of a large weight beta and a value near zero gives nothing.  So the share of key i in what
query j takes in is

    a_ji = sum over heads of |beta_ji v_i|  /  the same summed over all keys that are positions,

v_i being what the key adds where it alone is looked at, after the layers that follow the sum (norms
of weighted values: Kobayashi et al., EMNLP 2020).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.attention._interventions import Grid, grid_of


@torch.no_grad()
def shares(block: Block, x: Tensor) -> tuple[Tensor, Grid]:
    """Return a, (B, N, K), each row with a sum of 1, and the grid of the block's maps.

    Args:
        block: with maps, and without a `refusal`.
        x: (B, C, H, W), which it receives.
    """
    maps = block.maps(x)
    assert maps is not None
    grid = grid_of(maps, x.shape[2], x.shape[3])
    heads = maps if maps.dim() == 4 else maps[:, None]
    nothing = torch.zeros_like(maps)
    at_rest = _through(block, nothing, x)
    queries = torch.arange(heads.shape[2], device=x.device)
    taken = x.new_zeros(len(x), heads.shape[2], grid.keys)
    for head in range(heads.shape[1]):
        alone = torch.zeros_like(heads)
        alone[:, head, queries, grid.nulls + queries % grid.keys] = 1
        made = _through(block, alone.view_as(maps), x) - at_rest
        sizes = made.norm(dim=1)[:, : grid.keys]  # query i looks at key i alone
        taken += heads[:, head, :, grid.nulls :].abs() * sizes[:, None]
    tiny = torch.finfo(x.dtype).tiny
    return taken / taken.sum(2, keepdim=True).clamp_min(tiny), grid


def _through(block: Block, maps: Tensor, x: Tensor) -> Tensor:
    """Return o through maps as (B, C, N)."""
    o = block.through(maps, x)
    assert o is not None
    return o.expand_as(x).flatten(2)


@dataclass(frozen=True)
class Mass:
    """How much of what one part of an image takes in comes from the part that it must agree with.

    Attributes:
        mass: the mean over both directions and all images that have both parts.
        chance: the same parts by the maps of all *other* images: what their places alone give.
        images: how many have both parts.
    """

    mass: float
    chance: float
    images: int


class MassOnTwin:
    """Sums up `Mass` over batches of images, which must be at least two in all."""

    def __init__(self) -> None:
        self.own, self.queries, self.keys = list[Tensor](), list[Tensor](), list[Tensor]()
        self.total: Tensor | None = None
        self.count = 0

    def add(self, taken: Tensor, grid: Grid, parts: Tensor) -> None:
        """Take in images.

        Args:
            taken: (B, N, K), of `shares`.
            grid: of the maps.
            parts: (B, 2, S, S) bool, which pixels are of the one part and which of the other.
        """
        cells, side = (grid.rows, grid.columns), grid.side
        smaller = grid.rows // side, grid.columns // side
        pixels = parts.to(taken)
        queries, keys = (adaptive_avg_pool2d(pixels, size).flatten(2) for size in (cells, smaller))
        queries = queries / queries.sum(2, keepdim=True)  # NaN where there is no such part
        keys = keys.flip(1)
        self.own.append(torch.einsum("bpn,bnk,bpk->b", queries, taken, keys) / 2)
        self.queries.append(queries)
        self.keys.append(keys)
        summed = taken.sum(0)
        self.total = summed if self.total is None else self.total + summed
        self.count += len(taken)

    def mass(self) -> Mass | None:
        """Return the mass on the other part; None if no image has both, or there is but one."""
        if self.count < 2:
            return None
        own, queries, keys = map(torch.cat, (self.own, self.queries, self.keys))
        assert self.total is not None
        of_all = torch.einsum("bpn,nk,bpk->b", queries, self.total, keys) / 2
        others = (of_all - own) / (self.count - 1)
        both = own.isfinite()
        if not both.any():
            return None
        return Mass(float(own[both].mean()), float(others[both].mean()), int(both.sum()))
