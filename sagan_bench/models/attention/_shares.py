r"""What a query takes in, by where it comes from: maps weighted by the values that they sum.

A key of a large weight beta and a value near zero gives nothing.  So the share of key i in what
query j takes in is

    a_ji = sum over heads of |beta_ji v_i|  /  the same summed over all keys that are positions,

v_i being what the key adds where it alone is looked at, after the layers that follow the sum (norms
of weighted values: Kobayashi et al., EMNLP 2020).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.attention._interventions import Grid, grid_of


class Weighted(NamedTuple):
    """What decides the shares of some images, of all heads."""

    maps: Tensor
    """(B, heads, N, K), over the positions alone."""
    sizes: Tensor
    """|v|, (B, heads, K)."""
    grid: Grid


@torch.no_grad()
def weighted(block: Block, x: Tensor) -> Weighted:
    """Return the maps of a block and the sizes of its values.

    Args:
        block: with maps, and without a `refusal`.
        x: (B, C, H, W), which it receives.
    """
    maps = block.maps(x)
    assert maps is not None
    grid = grid_of(maps, x.shape[2], x.shape[3])
    heads = maps if maps.dim() == 4 else maps[:, None]
    at_rest = _through(block, torch.zeros_like(maps), x)
    queries = torch.arange(heads.shape[2], device=x.device)
    sizes = list[Tensor]()
    for head in range(heads.shape[1]):
        alone = torch.zeros_like(heads)
        alone[:, head, queries, grid.nulls + queries % grid.keys] = 1
        made = _through(block, alone.view_as(maps), x) - at_rest
        sizes.append(made.norm(dim=1)[:, : grid.keys])  # query i looks at key i alone
    return Weighted(heads[..., grid.nulls :], torch.stack(sizes, 1), grid)


def _through(block: Block, maps: Tensor, x: Tensor) -> Tensor:
    """Return o through maps as (B, C, N)."""
    o = block.through(maps, x)
    assert o is not None
    return o.expand_as(x).flatten(2)


def taken(maps: Tensor, sizes: Tensor) -> Tensor:
    """Return what queries take in, (B, N, K), of maps and sizes as `Weighted` has them."""
    return (maps.abs() * sizes[:, :, None]).sum(1)


def shares(amounts: Tensor, of: Tensor) -> Tensor:
    """Return amounts, (B, N, K), as shares of the row sums ``of`` others, (B, N, K)."""
    return amounts / of.sum(2, keepdim=True).clamp_min(torch.finfo(of.dtype).tiny)


@dataclass(frozen=True)
class Mass:
    """How much of what one part of an image takes in comes from the part that it must agree with.

    Attributes:
        mass: the mean over both directions and all images that have both parts.
        chance: the same parts and values by the map of *another* image, as a share of what is taken
            in by the own one: what places and the sizes of values give.  With maps that are alike
            for all images both are the same.
        images: how many have both parts.
    """

    mass: float
    chance: float
    images: int


class MassOnTwin:
    """Sums up `Mass` over batches of images, which must be at least two in all.

    The other image is the one before; of the first it is the last.
    """

    def __init__(self) -> None:
        self.own, self.other = list[Tensor](), list[Tensor]()
        self.first: tuple[Tensor, Tensor, _Parts] | None = None
        """Of the first image, whose other one comes last: sizes, what it takes in, and parts."""
        self.last: Tensor | None = None
        """The maps of the image before."""
        self.count = 0

    def add(self, of: Weighted, parts: Tensor) -> None:
        """Take in images.

        Args:
            of: them.
            parts: (B, 2, S, S) bool, which pixels are of the one part and which of the other.
        """
        maps, sizes, grid = of
        places, amounts = _Parts.on(grid, parts.to(sizes)), taken(maps, sizes)
        self.own.append(places.mass(shares(amounts, amounts)))
        if self.last is None:
            self.first = sizes[:1], amounts[:1], places.of(slice(1))
            before, rest = maps[:-1], slice(1, None)
        else:
            before, rest = torch.cat([self.last, maps[:-1]]), slice(None)
        by_other = shares(taken(before, sizes[rest]), amounts[rest])
        self.other.append(places.of(rest).mass(by_other))
        self.last = maps[-1:]
        self.count += len(maps)

    def mass(self) -> Mass | None:
        """Return the mass on the other part; None if no image has both, or there is but one."""
        if self.count < 2 or self.first is None or self.last is None:
            return None
        sizes, amounts, places = self.first
        own = torch.cat(self.own)
        of_first = places.mass(shares(taken(self.last, sizes), amounts))
        others = torch.cat([of_first, *self.other])
        both = own.isfinite()
        if not both.any():
            return None
        return Mass(float(own[both].mean()), float(others[both].mean()), int(both.sum()))


class _Parts(NamedTuple):
    """Where the parts of images are, in shares: NaN where there is no such part."""

    queries: Tensor
    """(B, 2, N): of a part, which sum to 1."""
    keys: Tensor
    """(B, 2, K): of each key, how much of it is the other part."""

    @classmethod
    def on(cls, grid: Grid, pixels: Tensor) -> "_Parts":
        cells, smaller = ((grid.rows // side, grid.columns // side) for side in (1, grid.side))
        queries, keys = (adaptive_avg_pool2d(pixels, size).flatten(2) for size in (cells, smaller))
        return cls(queries / queries.sum(2, keepdim=True), keys.flip(1))

    def of(self, images: slice) -> "_Parts":
        return _Parts(self.queries[images], self.keys[images])

    def mass(self, of: Tensor) -> Tensor:
        """Return what parts take in from each other, of shares: the mean of both ways, (B,)."""
        return torch.einsum("bpn,bnk,bpk->b", self.queries, of, self.keys) / 2
