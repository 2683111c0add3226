"""A block's maps, seen from outside: which axis they sum over, what they look at, how they enter o.

A block with maps has modules ``query``, ``key`` and ``value``, the last layers that make them: the
checks replace what they make by designed features.  What follows the sum may stand in ``out``.
"""

from contextlib import ExitStack
from math import isclose

import torch
from torch import Tensor, nn

from sagan_bench.experiments.conformance._alone import refuse_replacing
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject, Unusual
from sagan_bench.experiments.conformance._looking import (
    POSITIONS,
    Looking,
    channel_dim,
    summed,
)
from sagan_bench.experiments.conformance._parts import SIDE, block_of, features
from sagan_bench.models.attention._blocks import Block

TOLERANCE = 5e-3
"""Relative: maps may be rounded to half precision, and bugs are far beyond it."""
LAYERS = ("query", "key", "value")
MOVED = 1e-9
"""Relative, in fp64: what a row is off that has not moved."""
THE_SAME = 1e-3
"""Relative: between factors of other weights that are constant, or shares that have not moved."""
PLACES = (0, 18, 44)
"""Positions that are looked at more closely: the first of a cell where keys are pooled."""


@torch.no_grad()
def axis(subject: Subject) -> str:
    """Each row of the maps is a distribution, over keys; and o is maps times values."""
    refuse_replacing(subject)
    try:
        looking = Looking(subject)
    except Skipped:
        return _of_alike_values(subject)
    looking.require("value")
    maps = looking.maps()
    if maps.shape[2] > POSITIONS and not subject.says("null key"):
        raise Unusual("null key", f"{maps.shape[2]} columns for {POSITIONS} positions")
    rows_even = _require_distributions(subject, maps)
    sums = summed(looking, maps)
    gated = False
    if sums.fit().residual > TOLERANCE:
        _require_gate(looking)
        gated = True
    if not rows_even:
        raise Unusual("softmax over queries")
    gate = ", times what x says of each position" if gated else ""
    return f"rows are distributions over keys, and o is maps times values{gate}"


def _require_distributions(subject: Subject, maps: Tensor) -> bool:
    """Return whether rows are distributions, and not columns.

    Raises:
        Broken: neither are.
    """
    if maps.isfinite().all() and subject.says("no distribution"):
        return True
    if not maps.isfinite().all() or maps.min() < -TOLERANCE:
        raise Broken(
            "maps have entries that are negative or not finite",
            "return what softmax did; if they are no distributions, declare "
            "deliberate = ('no distribution',)",
        )
    rows, columns = maps.sum(2), maps.sum(1)
    if not (_even(rows) or _even(columns)):
        raise Broken(
            f"neither rows nor columns of the maps sum to the same: {float(rows.min()):.3g} to "
            f"{float(rows.max()):.3g}",
            "take the softmax over keys, the last dim",
        )
    return _even(rows)


def _even(sums: Tensor) -> bool:
    """Return whether the sums of each head, (H, N), are all the same."""
    return bool(((sums.std(1) / sums.mean(1)).abs() < TOLERANCE).all())


def _require_gate(looking: Looking) -> None:
    """Raise `Broken` unless o is the sum by the maps times what x says of each position.

    What queries and keys say of each must be in the maps: with theirs as they were, and another x,
    the factors must be others.
    """
    residual, factors = 0.0, list[Tensor]()
    known = {}
    if all(isinstance(looking.layer(name), nn.Module) for name in ("query", "key")):
        known = dict.fromkeys(("query", "key"), _patterned())
    with looking.making(**known):
        for _ in range(2):
            fit = summed(looking, looking.maps()).fit(by_position=True)
            residual = max(fit.residual, residual)
            factors.append(fit.factors)
            looking.x = looking.on_cells(2 * features(images=1).to(looking.x))
    if residual > TOLERANCE:
        raise Broken(
            f"o is not the sum of values by the maps: with known values, {residual:.0%} of it is "
            "something else",
            "o_j = sum over i of maps[j, i] value_i, keys of positions behind null keys; what "
            "follows the sum belongs in a module out, and layers that only make queries, keys and "
            "values in query, key and value; of heads of their own kinds return (B, heads, N, M)",
        )
    if torch.allclose(factors[0], factors[1], rtol=TOLERANCE):
        raise Broken(
            "o is the sum of values by the maps times a factor of each position",
            "return the maps that values are summed by, after all that is done to them",
        )


def _patterned() -> Tensor:
    """Return codes (S, S, 2), (a, -a), of cells of 4 x 4."""
    a = torch.randn(SIDE // 4, SIDE // 4, 1, dtype=torch.float64)
    a = a.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return torch.cat([a, -a], 2)


def _of_alike_values(subject: Subject) -> str:
    """Where a block without maps has the three layers: alike values give an o that is constant.

    Raises:
        Skipped: it has not, or o is gated by x.
        Unusual: o is not constant, though it is where queries and keys are alike too.
    """
    block = block_of(subject, gamma=1.0).double()
    if not all(isinstance(getattr(block, name, None), nn.Module) for name in LAYERS):
        raise Skipped("it has no maps, and not the layers query, key and value")
    x, other = (features(images=1).double() for _ in range(2))
    if _even_rows(_alike(block, x, "value")):
        return "without maps: of values that are all alike, o is constant"
    o, others = (_alike(block, each, *LAYERS) for each in (x, other))
    if not _even_rows(o) and not torch.allclose(o, others, rtol=TOLERANCE):
        raise Skipped("it has no maps, and o is gated by x")
    raise Unusual("no distribution", "of values that are all alike, o is not constant")


def _alike(block: Block, x: Tensor, *names: str) -> Tensor:
    """Return o, or what ``out`` is given, (N, V), where layers make the same of all positions."""
    seen = list[Tensor]()

    def alike(layer: nn.Module, _inputs: object, made: Tensor) -> Tensor:
        channels = channel_dim(layer, made)
        constant = torch.linspace(-1, 2, made.shape[channels], dtype=made.dtype)
        return constant.expand(made.movedim(channels, -1).shape).movedim(-1, channels)

    def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].movedim(channel_dim(layer, inputs[0]), -1).flatten(0, -2))

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(getattr(block, name).register_forward_hook(alike).remove)
        if isinstance(out := getattr(block, "out", None), nn.Module):
            hooks.callback(out.register_forward_pre_hook(see).remove)
        o = (block(x) - x)[0].flatten(1).mT
    return seen[0] if seen else o


def _even_rows(rows: Tensor) -> bool:
    return bool((rows - rows.mean(0)).norm() <= TOLERANCE * rows.norm())


@torch.no_grad()
def rows(subject: Subject) -> str:
    """Another query of a position moves its row of the maps, and no other."""
    looking = Looking(subject)
    if looking.constant:
        return "its maps do not depend on the images"
    looking.need("query")
    if looking.layer("query") is looking.layer("key"):
        raise Skipped("its queries are its keys")
    before = looking.maps()
    if not _even(before.sum(2)) and not subject.says("no distribution"):
        raise Skipped("the rows of its maps are no distributions")
    for position in PLACES:
        moved = _off(_with_another(looking, "query", position), before)
        if moved == [position]:
            continue
        if len(moved) > 1 and subject.says("rows depend on each other"):
            return "deliberate: rows depend on each other"
        which = f"row {moved[0]}" if len(moved) == 1 else f"{len(moved) or 'no'} rows"
        raise Broken(
            f"another query of position {position} moves {which} of the maps",
            "row j is that of query j alone: normalise queries over channels, take the softmax "
            "over keys, and undo what order windows have; if rows are to depend on each other, "
            "declare deliberate = ('rows depend on each other',)",
        )
    return "a position's query moves its own row"


@torch.no_grad()
def columns(subject: Subject) -> str:
    """How a position shares between two keys does not depend on a third."""
    looking = Looking(subject)
    if looking.constant:
        return "its maps do not depend on the images"
    looking.need("query", "key", "value")
    before = looking.maps()
    if not _even(before.sum(2)) or subject.says("rows depend on each other"):
        raise Skipped("the rows of its maps are no distributions of their own")
    if len(before) > 1 or not summed(looking, before).same_for_all:
        raise Skipped("its heads may share their maps")
    for position in PLACES:
        after = _with_another(looking, "key", position)
        rows, columns = torch.arange(POSITIONS), torch.arange(before.shape[2])
        cell = looking.keys()[position] + before.shape[2] - int(looking.keys().max()) - 1
        shares = [maps[:, rows != position][..., columns != cell] for maps in (after, before)]
        now, then = (share / share.sum(2, keepdim=True) for share in shares)
        moved = _off(now, then, THE_SAME)
        if 2 * len(moved) > POSITIONS:  # of a mean of rows' and columns' maps a few do
            raise Unusual("columns depend on each other")
    return "a position's key moves its own column, and others alike"


def _off(after: Tensor, before: Tensor, by: float = MOVED) -> list[int]:
    """Return the rows of maps that have moved, by more than a share of the largest entry."""
    off = (after - before).abs().amax((0, 2)) > by * before.amax()
    return [int(row) for row in off.nonzero()]


def _with_another(looking: Looking, name: str, position: int) -> Tensor:
    """Return the maps with another query, or key, of a position.

    Raises:
        Skipped: none is that of this position alone.
    """
    pattern = torch.arange(POSITIONS).view(SIDE, SIDE, 1)

    def other(layer: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
        its = looking.placed(pattern, layer, inputs[0], made).squeeze(-1) == position
        if int(its.sum()) != 1 or (name == "query" and its.numel() != POSITIONS):
            raise Skipped("its queries or keys are not those of each position")
        made = made.clone()
        rows = made.movedim(channel_dim(layer, made), -1)  # a view
        rows[its] = 4 * torch.randn_like(rows[its])
        return made

    handle = looking.layer(name).register_forward_hook(other)
    try:
        return looking.maps()
    finally:
        handle.remove()


@torch.no_grad()
def sign(subject: Subject) -> str:
    """With query = key, orthogonal between quadrants, a position looks at its own more."""
    looking = Looking(subject)
    if looking.constant:
        return "its maps do not depend on the images"
    looking.require("query", "key")
    codes = torch.eye(4, dtype=looking.x.dtype)[_quadrants()]
    own, before = (_own_mass(looking, code) for code in (codes, torch.zeros_like(codes)))
    gains = [float((own - before)[_quadrants().flatten() == q].mean()) for q in range(4)]
    if max(gains) < TOLERANCE and min(gains) > -TOLERANCE:
        raise Broken(
            "queries and keys do not change the maps",
            "make the maps of query(x) and key(x), and take the softmax over keys, the last dim",
        )
    worst = sorted(range(4), key=gains.__getitem__)[:2]  # random features may miss one
    if gains[worst[1]] < TOLERANCE:
        at = torch.isin(_quadrants().flatten(), torch.tensor(worst))
        raise Broken(
            "where query = key, positions of two quadrants look at their own less, "
            f"{float(own[at].mean()):.2f} of their mass, than with all alike, "
            f"{float(before[at].mean()):.2f}",
            "the larger the product (or the smaller the distance) the larger the entry: look at "
            "the sign before the softmax, and at the order of positions",
        )
    mass, alike = float(own.mean()), float(before.mean())
    return f"{mass:.2f} of the mass is on the own quadrant, {alike:.2f} where all are alike"


def _quadrants() -> Tensor:
    """Return the quadrant of each position, (S, S), 0 to 3."""
    half = torch.arange(SIDE) * 2 // SIDE
    return 2 * half[:, None] + half


def _own_mass(looking: Looking, codes: Tensor) -> Tensor:
    """Return the share of each row, (N,), that is on positions of its own quadrant."""
    with looking.making(query=codes, key=codes):
        maps = looking.maps().mean(0)
    which = _quadrants()
    keys = which[:: looking.cell, :: looking.cell].flatten()
    same = which.flatten()[:, None] == keys
    return (maps[:, -len(keys) :] * same).sum(1) / maps.abs().sum(1)


@torch.no_grad()
def scale(subject: Subject) -> str:
    """No factor stands after the softmax, in the maps or in o; large products are no trouble."""
    draws = list[list[float]]()
    for _ in range(2):  # of other weights: a learned factor is another then
        looking = Looking(subject)
        looking.need("value", *(() if looking.constant else ("query", "key")))
        maps = looking.maps()
        fit = summed(looking, maps).fit()
        total = min((maps.sum(2), maps.sum(1)), key=lambda sums: float(sums.std())).mean()
        factor = fit.factors.sum(0).mean() if fit.residual <= TOLERANCE else torch.ones(())
        draws.append([float(total), float(factor)])
    if not looking.constant:
        codes = 100 * torch.eye(4, dtype=looking.x.dtype)[_quadrants()]
        with looking.making(query=codes, key=codes):
            if not looking.maps().isfinite().all():
                raise Broken("large products overflow", "use softmax(), not exp()")
    if subject.says("no distribution"):
        return "deliberate: no distribution"
    (total_is, factor_is), again = draws
    if abs(total_is - 1) > TOLERANCE and isclose(total_is, again[0], rel_tol=THE_SAME):
        raise Broken(
            f"distributions of the maps sum to {total_is:.4g}: a factor stands after the softmax, "
            "or it is taken over another dim than keys",
            "multiply the products before it",
        )
    if abs(factor_is - 1) > TOLERANCE and isclose(factor_is, again[1], rel_tol=THE_SAME):
        raise Broken(
            f"o is {factor_is:.4g} times the sum of values by the maps: a factor stands after the "
            "softmax",
            "multiply the products before it; a learned factor may stand in a module out",
        )
    return "distributions sum to 1, and no factor stands after the softmax"


MAPS = (axis, rows, columns, sign, scale)
