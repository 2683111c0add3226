"""A block's maps, seen from outside: which axis they sum over, what they look at, how they enter o.

A block with maps has modules ``query``, ``key`` and ``value``, the last layers that make them: the
checks replace what they make by designed features.  What follows the sum may stand in ``out``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject, Unusual
from sagan_bench.experiments.conformance._parts import SIDE, block_of, features
from sagan_bench.models.attention._blocks import Block

TOLERANCE = 5e-3
"""Relative: maps may be rounded to half precision, and bugs are far beyond it."""
POSITIONS = SIDE * SIDE


def _with_maps(subject: Subject) -> tuple[Block, Tensor]:
    """Return a block in fp64, and x that is constant on the cells that are pooled, if any.

    Raises:
        Skipped: it has no maps.
        Broken: they are no (B, N, M).
    """
    block = block_of(subject, gamma=1.0).double()
    x = 2 * features().double()  # so that maps are far from even
    maps = block.maps(x)
    if maps is None:
        raise Skipped("it has no maps")
    if maps.dim() != 3 or maps.shape[:2] != (len(x), POSITIONS):
        raise Broken(
            f"maps have the shape {tuple(maps.shape)}, not (B, N, M) = ({len(x)}, {POSITIONS}, M)",
            "return the mean over heads; row j says where position j looks",
        )
    cell = _cell(maps.shape[2])
    coarse = x[..., ::cell, ::cell]
    return block, coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)


def _cell(columns: int) -> int:
    """Return the side of the cells that are pooled; 1 where there are as many keys, or more.

    Raises:
        Broken: there are fewer, and not by whole cells.
    """
    if columns >= POSITIONS:
        return 1
    for cell in (2, 4, 8):
        if columns * cell * cell == POSITIONS:
            return cell
    raise Broken(
        f"maps of {POSITIONS} positions have {columns} columns, which are no pooled positions",
        "return None from maps() if they say nothing of positions",
    )


def _modules(block: Block, *names: str) -> None:
    """Raise `Broken` where a module of the convention is missing."""
    missing = [name for name in names if not isinstance(getattr(block, name, None), nn.Module)]
    if missing:
        raise Broken(
            f"it has maps, and no module {', '.join(missing)}: its axis, sign and scale cannot be "
            "seen",
            "call the layers that make queries, keys and values query, key and value, and what "
            "follows the sum out; or return None from maps()",
        )


def _constant(block: Block, x: Tensor) -> bool:
    """Return whether the maps do not depend on the images."""
    maps, others = block.maps(x), block.maps(x.flip(0).roll(3, 2) * 2)
    return maps is not None and others is not None and torch.allclose(maps, others)


def _shaped(pattern: Tensor, like: Tensor) -> Tensor:
    """Return a pattern (B, S, S, D) in the form that a layer gave: maps, or rows of positions."""
    if like.dim() == 4:
        return pattern[:, :: SIDE // like.shape[2], :: SIDE // like.shape[3]].permute(0, 3, 1, 2)
    cell = _cell(like.shape[-2])
    return pattern[:, ::cell, ::cell].flatten(1, 2)


@contextmanager
def _looking(block: Block, codes: Tensor) -> Iterator[None]:
    """Have queries and keys be ``codes``, (B, S, S, K), again and again along the channels."""

    def replaced(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        width = output.shape[1] if output.dim() == 4 else output.shape[-1]
        pattern = codes[..., torch.arange(width) % codes.shape[-1]]
        return _shaped(pattern, output).to(output.dtype)

    handles = [
        getattr(block, name).register_forward_hook(replaced) for name in ("query", "key")
    ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Fit(NamedTuple):
    """How o is made of the maps: per channel, o = factor * (maps @ v) + constant."""

    residual: float
    """What is left, relative."""
    factors: Tensor
    """(V,)."""


def _fit(block: Block, x: Tensor) -> _Fit:
    """Fit o by the maps, with v the first channel of what ``value`` is given."""
    seen: dict[str, Tensor] = {}

    def value(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        given = inputs[0]
        first = given[:, :1] if given.dim() == 4 else given[..., :1]
        if given.dim() == output.dim() == 4:  # which strides may make smaller
            first = first[
                ..., :: given.shape[2] // output.shape[2], :: given.shape[3] // output.shape[3]
            ]
        seen["v"] = first.flatten(1)
        return first.expand(output.shape)

    def out(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["o"] = inputs[0]

    layer = getattr(block, "out", None)
    handles = [block.value.register_forward_hook(value)]  # type: ignore[union-attr]
    if isinstance(layer, nn.Module):
        handles.append(layer.register_forward_pre_hook(out))
    try:
        o = block(x) - x if type(block).branch is Block.branch else block.branch(x)
        o = seen.get("o", o)
    finally:
        for handle in handles:
            handle.remove()
    maps = block.maps(x)
    assert maps is not None
    return min(_fits(maps, seen.get("v", x[:, 0].flatten(1)), x, o), key=lambda fit: fit.residual)


def _fits(maps: Tensor, v: Tensor, x: Tensor, o: Tensor) -> Iterator[_Fit]:
    """Yield a fit with the positions as the first columns, and as the last."""
    rows = o.expand(*o.shape[:2], *x.shape[2:]).flatten(2).mT if o.dim() == 4 else o
    rows = rows.flatten(0, 1)
    columns = min(maps.shape[2], POSITIONS)
    if v.shape[1] != columns:  # a value of a mean is that of x; or they are pooled afterwards
        cell = _cell(columns)
        v = (v if v.shape[1] == POSITIONS else x[:, 0].flatten(1)).unflatten(1, (SIDE, SIDE))
        v = v[:, ::cell, ::cell].flatten(1)
    for start in {0, maps.shape[2] - columns}:
        own, rest = maps[..., start : start + columns], maps.clone()
        rest[..., start : start + columns] = 0
        expected = (own @ v[..., None]).flatten(0, 1)
        null = rest.sum(2, keepdim=True).flatten(0, 1)
        basis = torch.cat([expected, torch.ones_like(expected), null], 1)
        basis = basis if rest.any() else basis[:, :2]
        factors = torch.linalg.lstsq(basis, rows, driver="gelsd").solution
        left = (rows - basis @ factors).norm() / (rows - rows.mean(0)).norm().clamp_min(1e-12)
        yield _Fit(float(left), factors[0])


def _patterned() -> Tensor:
    """Return codes (B, S, S, 2), (a, -a), with which all heads have the same map."""
    a = torch.randn(3, SIDE // 2, SIDE // 2, 1, dtype=torch.float64)
    a = a.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return torch.cat([a, -a], 3)


@torch.no_grad()
def axis(subject: Subject) -> str:
    """Each row of the maps is a distribution, over keys; and o is maps times values."""
    block, x = _with_maps(subject)
    _modules(block, "value", *(() if _constant(block, x) else ("query", "key")))
    maps = block.maps(x)
    assert maps is not None
    if not maps.isfinite().all() or maps.min() < -TOLERANCE:
        raise Broken("maps have entries that are negative or not finite", "return what softmax did")
    sums = {"rows": maps.sum(2), "columns": maps.sum(1)}
    even = {name: bool((s.std() / s.mean()).abs() < TOLERANCE) for name, s in sums.items()}
    if not any(even.values()):
        raise Broken(
            f"neither rows nor columns of the maps sum to the same: {float(sums['rows'].min()):.3g}"
            f" to {float(sums['rows'].max()):.3g}",
            "take the softmax over keys, the last dim",
        )
    with nullcontext() if _constant(block, x) else _looking(block, _patterned()):
        residual = _fit(block, x).residual
    if residual > TOLERANCE:
        raise Broken(
            "o is not the sum of values by the maps: with known queries, keys and values, "
            f"{residual:.0%} of it is something else",
            "o_j = sum over i of maps[j, i] value_i; what follows the sum belongs in a module out, "
            "and layers that only make queries, keys and values in query, key and value",
        )
    if not even["rows"]:
        raise Unusual("softmax over queries")
    if maps.shape[2] > POSITIONS:
        raise Unusual("null key", f"{maps.shape[2]} columns for {POSITIONS} positions")
    return "rows are distributions over keys, and o is maps times values"


@torch.no_grad()
def sign(subject: Subject) -> str:
    """With query = key, orthogonal between quadrants, a position looks at its own more."""
    block, x = _with_maps(subject)
    if _constant(block, x):
        return "its maps do not depend on the images"
    _modules(block, "query", "key")
    which = _quadrants(len(x))
    codes = torch.eye(4, dtype=x.dtype)[which]
    own, before = (_own_mass(block, x, which, c) for c in (codes, torch.zeros_like(codes)))
    gains = [float((own - before)[which.flatten(1) == q].mean()) for q in range(4)]
    if max(gains) < TOLERANCE and min(gains) > -TOLERANCE:
        raise Broken(
            "queries and keys do not change the maps", "make the maps of query(x) and key(x)"
        )
    if min(gains) < TOLERANCE:
        raise Broken(
            f"where query = key, a position looks at its own quadrant less, {float(own.mean()):.2f}"
            f" of its mass, than with all alike, {float(before.mean()):.2f}",
            "the larger the product (or the smaller the distance) the larger the entry: look at "
            "the sign before the softmax, and at the order of positions",
        )
    mass, alike = float(own.mean()), float(before.mean())
    return f"{mass:.2f} of the mass is on the own quadrant, {alike:.2f} where all are alike"


def _quadrants(images: int) -> Tensor:
    """Return the quadrant of each position, (B, S, S), 0 to 3."""
    half = torch.arange(SIDE) * 2 // SIDE
    return (2 * half[:, None] + half).expand(images, SIDE, SIDE)


def _own_mass(block: Block, x: Tensor, which: Tensor, codes: Tensor) -> Tensor:
    """Return the share of each row, (B, N), that is on positions of its own quadrant."""
    with _looking(block, codes):
        maps = block.maps(x)
    assert maps is not None
    columns = min(maps.shape[2], POSITIONS)
    cell = _cell(columns)
    keys = which[:, ::cell, ::cell].flatten(1)
    same = which.flatten(1)[..., None] == keys[:, None]
    start = maps.shape[2] - columns
    mass = [(maps[..., s : s + columns] * same).sum(2) for s in {0, start}]
    return torch.stack(mass).amax(0) / maps.sum(2)


@torch.no_grad()
def scale(subject: Subject) -> str:
    """No factor stands after the softmax, in the maps or in o; large products are no trouble."""
    sums, factors = list[Tensor](), list[Tensor]()
    for _ in range(2):  # of other weights: a learned factor is another then
        block, x = _with_maps(subject)
        constant = _constant(block, x)
        _modules(block, "value", *(() if constant else ("query", "key")))
        maps = block.maps(x)
        assert maps is not None
        sums = [maps.sum(2), maps.sum(1)]
        with nullcontext() if constant else _looking(block, _patterned()):
            factors.append(_fit(block, x).factors)
    total = float(min(sums, key=lambda s: float(s.std())).mean())
    if abs(total - 1) > TOLERANCE:
        raise Broken(
            f"distributions of the maps sum to {total:.4g}: a factor stands after the softmax",
            "multiply the products before it",
        )
    first, second = factors
    if torch.allclose(first, second) and not torch.allclose(first, torch.ones_like(first)):
        raise Broken(
            f"o is {float(first.mean()):.4g} times the sum of values by the maps: a factor "
            "stands after the softmax",
            "multiply the products before it; a learned factor may stand in a module out",
        )
    if not constant:
        with _looking(block, 100 * torch.eye(4, dtype=x.dtype)[_quadrants(len(x))]):
            if (large := block.maps(x)) is not None and not large.isfinite().all():
                raise Broken("large products overflow", "use softmax(), not exp()")
    return "distributions sum to 1, and no factor stands after the softmax"


MAPS = (axis, sign, scale)
