r"""What may be done to a block of finished weights: put on for a while, without changing a weight.

A block makes y = x + gamma * o, where o = through(beta, x) sums values by the maps beta.  Under an
intervention it is given other maps beta', and o' = through(beta', x).  Per image:

- **root mean square kept**: o' is multiplied by rms(o) / rms(o'), so that it is as strong as o.
- **sham**: o + s * rms(o' - o) / rms(s), s being the o of the image before, its positions in one
  fixed order of chance: a change of the same size that has nothing to do with the maps.

Changes act on where *among positions* a query looks.  Each row of beta' has over the positions the
sum that it has in beta: a softmax's 1, or less where there are null keys, whose columns stay.

Shapes: B images, N queries, K keys that are positions (N, or N / s^2 where s x s cells are pooled).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sagan_bench.core.seeding import generator
from sagan_bench.core.system import is_out_of_memory
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.replay import standing_in
from sagan_bench.runs.probe import NONE as WITHOUT

MAP_BYTES = 4 * 2**20
"""Of whole maps that are held at a time, but for one image's."""
AGREES = 1e-3
"""Relative: how far through(maps(x), x) may be from what a block adds, in fp32."""


class Grid(NamedTuple):
    """The positions that maps are over."""

    rows: int
    columns: int
    side: int
    """Of a key, in cells of the feature map."""
    nulls: int
    """Columns of null keys, which come first."""

    @property
    def keys(self) -> int:
        """K."""
        return self.rows * self.columns // self.side**2


def grid_of(maps: Tensor, rows: int, columns: int) -> Grid:
    """Return the grid of maps (..., N, M) of a feature map: as many of the M as can be positions.

    Raises:
        ValueError: the maps are not over its positions.
    """
    queries, width = maps.shape[-2:]
    for side in range(1, min(rows, columns) + 1):
        keys = rows * columns // side**2
        if rows % side == columns % side == 0 and keys <= width and queries == rows * columns:
            return Grid(rows, columns, side, width - keys)
    raise ValueError(
        f"maps of {queries} rows and {width} columns are not over {rows} x {columns} positions"
    )


Change = Callable[[Tensor, Grid], Tensor]
"""Of maps (..., N, K) over the positions: others, whose rows may have any sum but 0."""


class Intervention(NamedTuple):
    """What is done to a block."""

    name: str
    change: Change | None
    """None leaves the branch out: y = x, as at gamma = 0."""
    of_another: bool = False
    """Whether it takes the maps of the image before, in a batch; the first has those of the last"""
    needs: Literal["any", "a key a position", "no negative entries"] = "any"
    """Which maps it can change."""


def _as_it_is(beta: Tensor, grid: Grid) -> Tensor:
    return beta


def _uniform(beta: Tensor, grid: Grid) -> Tensor:
    return torch.ones_like(beta)


def _own_position(beta: Tensor, grid: Grid) -> Tensor:
    return torch.eye(grid.keys, dtype=beta.dtype, device=beta.device).expand_as(beta)


def _shuffled(beta: Tensor, grid: Grid) -> Tensor:
    """Put the keys of all queries into one order of chance."""
    return beta[..., permutation(grid.keys).to(beta.device)]


def _window(beta: Tensor, grid: Grid) -> Tensor:
    """Keep the key of a query's own cell and its eight neighbours; where all are 0, take them."""
    rows, columns = grid.rows // grid.side, grid.columns // grid.side
    cells = torch.cartesian_prod(torch.arange(grid.rows), torch.arange(grid.columns))
    keys = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    away = (cells[:, None] // grid.side - keys).abs().amax(2)
    near = (away <= 1).to(beta)
    kept = beta * near
    return torch.where(kept.sum(-1, keepdim=True) > 0, kept, near)


def _at_temperature(temperature: float) -> Change:
    def change(beta: Tensor, grid: Grid) -> Tensor:
        largest = beta.amax(-1, keepdim=True).clamp_min(torch.finfo(beta.dtype).tiny)
        return (beta / largest) ** (1 / temperature)

    return change


IDENTITY = Intervention("identity", _as_it_is)
"""Changes nothing: what a block does by its maps must be what it does."""
NONE = Intervention(WITHOUT, None)
UNIFORM = Intervention("uniform", _uniform)
ANOTHER_IMAGE = Intervention("another-image", _as_it_is, of_another=True)
TABLE = (
    NONE,
    UNIFORM,
    Intervention("own-position", _own_position, needs="a key a position"),
    ANOTHER_IMAGE,
    Intervention("shuffled", _shuffled),
    Intervention("window", _window, needs="no negative entries"),
    Intervention("temperature-0.5", _at_temperature(0.5), needs="no negative entries"),
    Intervention("temperature-2", _at_temperature(2), needs="no negative entries"),
)
"""Those that finished weights are probed by."""


def permutation(count: int) -> Tensor:
    """Return the one order of chance of so many positions: (count,) int64, always the same."""
    return torch.randperm(count, generator=generator(0, "probe", count))


def changed_maps(intervention: Intervention, maps: Tensor, rows: int, columns: int) -> Tensor:
    """Return the maps that an intervention makes of maps (..., N, M); see the module.

    Raises:
        ValueError: they are not over the positions of ``rows`` x ``columns``.
    """
    grid, change = grid_of(maps, rows, columns), intervention.change
    if change is None or change is _as_it_is:
        return maps
    nulls, beta = maps[..., : grid.nulls], maps[..., grid.nulls :]
    new, tiny = change(beta, grid), torch.finfo(beta.dtype).tiny
    if change is not _shuffled:  # which keeps the sums to the bit
        new = new * (beta.sum(-1, keepdim=True) / new.sum(-1, keepdim=True).clamp_min(tiny))
    return torch.cat([nulls, new], -1)


def refusal(block: Block, x: Tensor) -> str | None:
    """Return why a block can be changed by leaving its branch out alone; None if by its maps too.

    Looked at is whether through(maps(x), x) is what the block adds to x, (B, C, H, W), which it
    receives in its network.
    """
    name = type(block).__name__
    if type(block).through is Block.through:
        return f"{name} has no through(maps, x)"
    try:
        by_maps = _Acting(block, IDENTITY).by_maps(x)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return f"{name}.through(maps(x), x) fails: {error}"
    if by_maps is None:
        return f"{name} has no maps"
    o, factor, by = _added(block, x)
    given, wanted = factor * by * by_maps, factor * o
    off, size = (given - wanted).norm(), wanted.norm()
    # What a forward of the block's own adds is known but for the rounding of x.
    rounding = 4 * torch.finfo(x.dtype).eps * x.norm() if by is block.gamma else 0.0
    if not off <= AGREES * size + rounding:
        share = float(off / size.clamp_min(torch.finfo(x.dtype).tiny))
        return f"{name}.through(maps(x), x) is not what the block adds: {share:.2g} of it off"
    return None


def cannot(block: Block, intervention: Intervention, x: Tensor) -> str | None:
    """Return why an intervention cannot change the maps of a block on x; None if it can."""
    maps = block.maps(x)
    if maps is None or intervention.needs == "any":
        return None
    side = grid_of(maps, x.shape[2], x.shape[3]).side
    if intervention.needs == "a key a position" and side > 1:
        return f"its keys are pooled from {side} x {side} positions"
    if intervention.needs == "no negative entries" and bool((maps < 0).any()):
        return "its maps have negative entries"
    return None


@contextmanager
def intervened(
    blocks: Iterable[Block],
    intervention: Intervention,
    *,
    keeps_rms: bool = False,
    sham: bool = False,
) -> Iterator[None]:
    """Within, blocks act under an intervention; weights and buffers are never changed.

    A call where gradients are taken raises `RuntimeError`: it is no part of training.

    Args:
        blocks: none of which stands instead of a layer.
        intervention: what is done to each; but for `NONE` each is without a `refusal`.
        keeps_rms: of each image's branch.
        sham: in its place what is as large and says nothing of the maps.
    """
    with ExitStack() as stack:
        for block in blocks:
            if block.replaces:
                raise ValueError(f"{type(block).__name__} stands instead of a layer")
            acting = _Acting(block, intervention, keeps_rms=keeps_rms, sham=sham)
            stack.enter_context(standing_in(block, acting))
        yield


class _Acting:
    """The forward of a block under an intervention."""

    def __init__(
        self,
        block: Block,
        intervention: Intervention,
        *,
        keeps_rms: bool = False,
        sham: bool = False,
    ) -> None:
        self.block, self.intervention = block, intervention
        self.keeps_rms, self.sham = keeps_rms and intervention.change is not None, sham

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("an intervention is no part of training: call it under no_grad()")
        if self.intervention.change is None and not self.sham:
            return x.clone()
        by_maps = self.by_maps(x)
        if not (self.keeps_rms or self.sham):
            assert by_maps is not None
            return (x + self.block.gamma * by_maps).to(x.dtype)
        o, factor, by = _added(self.block, x)
        new = torch.zeros_like(o) if by_maps is None else (by * by_maps).expand_as(o)
        if self.keeps_rms:
            new = _scaled(new, rms(o))
        if self.sham:
            new = o + _scaled(_elsewhere(o), rms(new - o))
        return (x + factor * new).to(x.dtype)

    def by_maps(self, x: Tensor) -> Tensor | None:
        """Return o' of x, some images at a time; none without maps, or without the branch."""
        if self.intervention.change is None:
            return None
        block, call, parts = self.block, self.block.heard, list[Tensor]()
        shift = 1 if self.intervention.of_another else 0
        rows, before = torch.arange(len(x), device=x.device), x.roll(shift, 0) if shift else x
        images = max(1, MAP_BYTES // (x[0, 0].numel() ** 2 * x.element_size()))
        try:
            for part in rows.split(images):
                here = slice(int(part[0]), int(part[-1]) + 1)
                block.hear(call and call.of_images(rows.roll(shift)[here]))
                maps = block.maps(before[here])
                if maps is None:
                    return None
                block.hear(call and call.of_images(part))
                o = block.through(changed_maps(self.intervention, maps, *x.shape[2:]), x[here])
                assert o is not None
                parts.append(o)
        finally:
            block.hear(call)
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _added(block: Block, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """Return o in the shape of x, what it is multiplied by before it is added, and what o' is.

    A block with a ``forward`` of its own adds gamma * o in one: then o' needs its gamma too.
    """
    if type(block).forward is Block.forward:
        return block.branch(x).expand_as(x), block.gamma, 1.0
    return type(block).forward(block, x) - x, 1.0, block.gamma


def rms(o: Tensor) -> Tensor:
    """Return the root mean square of each image's o, (B, C, H, W), as (B, 1, 1, 1)."""
    return o.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _scaled(o: Tensor, size: Tensor) -> Tensor:
    """Return o with a root mean square of ``size``, (B, 1, 1, 1); zeros stay."""
    return o * (size / rms(o).clamp_min(math.sqrt(torch.finfo(o.dtype).tiny)))


def _elsewhere(o: Tensor) -> Tensor:
    """Return the o of the image before, its positions in one order of chance."""
    flat = o.roll(1, 0).flatten(2)
    return flat[:, :, permutation(flat.shape[2]).to(o.device)].unflatten(2, o.shape[2:])
