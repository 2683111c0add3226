"""Where a position is: whether a block knows it, and whether its o comes out there."""

import math

import torch
from torch import Tensor

from sagan_bench.experiments.conformance._alone import TOLERANCE, refuse_replacing
from sagan_bench.experiments.conformance._findings import Broken, Subject, Unusual
from sagan_bench.experiments.conformance._parts import (
    SIDE,
    block_of,
    features,
    labels_of,
    noise_of,
    off,
)
from sagan_bench.models.calls import tell

WIDE = 16
"""Side of the maps in which the influence of positions is seen: four windows of four."""
LITTLE = 0.1
"""Of the typical influence: less is none, as norms of whole maps have it."""
FEW = 0.25
"""Share of positions that may not be seen in their own o; and of what changes, on the whole."""


@torch.no_grad()
def positions(subject: Subject) -> str:
    """Permuted positions give permuted results, or the kind has ``positions``."""
    refuse_replacing(subject)
    block, x = block_of(subject), features()
    maps = block.maps(x)
    count = SIDE * SIDE
    cell = 1 if maps is None else _cell(maps.shape[-1])
    order = torch.randperm((SIDE // cell) ** 2)
    knows = off(block(permuted(x, order, cell)), permuted(block(x), order, cell)) > TOLERANCE
    declared = bool(getattr(subject.component, "positions", False))
    if knows and not declared:
        raise Broken(
            "permuted positions do not give permuted results",
            "set positions = True if it is to know where a position is; else look for a reshape "
            "without a transposition",
        )
    if not declared:
        return "permuted alike" + (f" (in cells of {cell} x {cell})" if cell > 1 else "")
    order = torch.randperm(count)
    if off(block(permuted(x, order, 1)), permuted(block(x), order, 1)) <= TOLERANCE:
        raise Unusual("positions not seen")
    return "it knows them"


def _cell(columns: int) -> int:
    """Return the side of the cells of positions that columns are of; 1 where they are of others."""
    cell = round(SIDE / max(1.0, columns**0.5))
    return cell if cell and SIDE % cell == 0 and (SIDE // cell) ** 2 == columns else 1


def permuted(x: Tensor, order: Tensor, cell: int) -> Tensor:
    """Return x with its cells of positions, each ``cell`` squared, in another order."""
    cells = torch.nn.functional.pixel_unshuffle(x, cell)
    moved = cells.flatten(2)[..., order].unflatten(2, cells.shape[2:])
    return torch.nn.functional.pixel_shuffle(moved, cell)


@torch.no_grad()
def own_position(subject: Subject) -> str:
    """Another x at a position changes o there, and else around it.

    A map that is rolled and not rolled back has the o of others at each position.
    """
    refuse_replacing(subject)
    places = torch.randperm(WIDE * WIDE)[:64]
    changes = _changes(subject, places)
    typical = changes.square().sum(1, keepdim=True) / changes.sum(1, keepdim=True).clamp_min(1e-30)
    seen = changes >= LITTLE * typical
    unseen = 1 - _share(seen, places)
    if unseen < FEW:
        return "what stands there is seen in o"
    if subject.says("own position not seen"):
        return "deliberate: own position not seen"
    rows, columns = places // WIDE, places % WIDE
    away, last = _away(changes, places), WIDE - 1
    turned = (columns * WIDE + rows, rows * WIDE + last - columns, (last - rows) * WIDE + columns)
    is_turned = max(_share(seen, other) for other in turned) > 1 - FEW and seen.float().mean() < 0.5
    if max(map(abs, away)) >= 0.5 or is_turned or _shifts(seen, places) == 1:
        raise Broken(
            f"o is off its place: another x at a position does not change o there ({unseen:.0%} of "
            f"positions), but elsewhere, {away[0]:+.1f} rows and {away[1]:+.1f} columns away on "
            "the average",
            "undo a roll, flip, transposition or order of windows after the sum; if that is meant, "
            "declare deliberate = ('own position not seen',)",
        )
    if unseen > 0.5:
        raise Unusual("own position not seen")
    return f"what stands there is seen in o at {1 - unseen:.0%} of positions"


def _share(seen: Tensor, places: Tensor) -> float:
    """Return the share of rows of (P, N) that are true at a place, (P,)."""
    return float(seen.gather(1, places[:, None]).float().mean())


def _shifts(seen: Tensor, places: Tensor) -> int:
    """Return the number of ways, in rows and columns, in which nearly all places are seen away."""
    maps = zip(seen.float().unflatten(1, (WIDE, WIDE)), places.tolist(), strict=True)
    rolled = [map_.roll((-(at // WIDE), -(at % WIDE)), (0, 1)) for map_, at in maps]
    return int((torch.stack(rolled).mean(0) > 1 - FEW).sum())


def _changes(subject: Subject, places: Tensor) -> Tensor:
    """Return how much another x at each of P places changes o at each position, (P, N)."""
    block = block_of(subject, side=WIDE, gamma=1.0)
    x = features(images=1, side=WIDE)
    each = torch.arange(len(places))
    others = x.expand(len(places), *x.shape[1:]).flatten(2).clone()
    others[each, :, places] = 3 * torch.randn(len(places), x.shape[1])
    others = others.view(len(places), *x.shape[1:])

    def o(images: Tensor) -> Tensor:
        tell(block, (noise_of(x).expand(len(images), -1), labels_of(x).expand(len(images))))
        return block(images) - images

    return (o(others) - o(x)).flatten(2).norm(dim=1)


def _away(changes: Tensor, places: Tensor) -> tuple[float, float]:
    """Return how many rows and columns away what changes is: circular means, 0 of all around."""
    position = torch.arange(WIDE * WIDE)
    away = []
    for along in (position // WIDE, position % WIDE):
        angles = 2 * math.pi * (along - along[places, None]) / WIDE
        mean = (changes * torch.polar(torch.ones_like(angles), angles)).sum() / changes.sum()
        away.append(float(mean.angle()) * WIDE / (2 * math.pi) if mean.abs() > FEW else 0.0)
    return away[0], away[1]


PLACES = (positions, own_position)
