"""What a block with maps does with queries, keys and values of our own, wherever it makes them.

Hooks replace what its modules ``query``, ``key`` and ``value`` make.  Positions may stand in any
order there, in windows or pooled: where each stands is seen of an x with other numbers everywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sagan_bench.experiments.conformance._alone import refuse_replacing
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject
from sagan_bench.experiments.conformance._parts import CHANNELS, SIDE, block_of, features

POSITIONS = SIDE * SIDE
NEARLY = 0.99
"""Correlation of x and of what a layer is given, where that is x in another order."""


class Looking:
    """A block with maps in fp64, and an image for it, constant on the cells that are pooled.

    Raises:
        Skipped: it has no maps, or stands instead of a layer.
        Broken: they are no (B, N, M) or (B, H, N, M).
    """

    def __init__(self, subject: Subject) -> None:
        refuse_replacing(subject)
        self.block = block_of(subject, gamma=1.0).double()
        x = 2 * features(images=1).double()  # so that maps are far from even
        maps = self.block.maps(x)
        if maps is None:
            raise Skipped("it has no maps")
        if maps.dim() not in (3, 4) or (maps.shape[0], maps.shape[-2]) != (1, POSITIONS):
            raise Broken(
                f"maps have the shape {tuple(maps.shape)}, not (B, N, M) = (1, {POSITIONS}, M), or "
                "(B, heads, N, M)",
                "row j says where position j looks",
            )
        self.by_head = maps.dim() == 4
        self.cell = _cell(maps.shape[-1])
        self.x = self.on_cells(x)
        self.places: dict[tuple[int, torch.Size], Tensor] = {}
        self._find_places()

    def on_cells(self, x: Tensor) -> Tensor:
        """Return x, (B, C, S, S), with the first position of each cell throughout the cell."""
        coarse = x[..., :: self.cell, :: self.cell]
        return coarse.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)

    def maps(self, x: Tensor | None = None) -> Tensor:
        """Return the maps of the image, or of another, (H, N, M); of a mean of heads H is 1."""
        maps = self.block.maps(self.x if x is None else x)
        assert maps is not None
        return maps[0].reshape(-1, *maps.shape[-2:])

    def keys(self) -> Tensor:
        """Return which key each position's is, (N,), null keys aside."""
        side = SIDE // self.cell
        keys = torch.arange(side * side).view(side, side)
        return keys.repeat_interleave(self.cell, 0).repeat_interleave(self.cell, 1).flatten()

    @property
    def constant(self) -> bool:
        """Whether the maps do not depend on the image."""
        other = self.on_cells(features(images=1).double())
        return torch.allclose(self.maps(), self.maps(other))

    def o(self) -> Tensor:
        """Return o of the image, (C, N)."""
        return (self.block(self.x) - self.x)[0].flatten(1)

    def require(self, *names: str) -> None:
        """Raise `Broken` where a module of the convention is missing."""
        missing = [name for name in names if not isinstance(self.layer(name), nn.Module)]
        if missing:
            raise Broken(
                f"it has maps, and no module {', '.join(missing)}: how it makes and uses them is "
                "not seen",
                "call the layers that make queries, keys and values query, key and value, and what "
                "follows the sum out; or return None from maps()",
            )

    def need(self, *names: str) -> None:
        """Raise `Skipped` where a module is missing, which others have said is wrong."""
        if missing := [name for name in names if not isinstance(self.layer(name), nn.Module)]:
            raise Skipped(f"it has no module {', '.join(missing)}")

    def layer(self, name: str) -> Any:
        """Return a module of the block, or None."""
        return getattr(self.block, name, None)

    @contextmanager
    def making(self, **patterns: Tensor) -> Iterator[None]:
        """Have layers make patterns, (S, S, K): again and again along their channels."""

        def replacing(pattern: Tensor) -> Callable[..., Tensor]:
            def replaced(layer: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
                channels = channel_dim(layer, made)
                rows = self.placed(pattern, layer, inputs[0], made)
                rows = rows[..., torch.arange(made.shape[channels]) % rows.shape[-1]]
                return rows.to(made.dtype).movedim(-1, channels)

            return replaced

        with ExitStack() as hooks:
            for name, pattern in patterns.items():
                handle = self.layer(name).register_forward_hook(replacing(pattern))
                hooks.callback(handle.remove)
            yield

    def placed(self, pattern: Tensor, layer: nn.Module, given: Tensor, made: Tensor) -> Tensor:
        """Return a pattern, (S, S, K), where a layer's positions stand: (..., K)."""
        shape = made.movedim(channel_dim(layer, made), -1).shape[:-1]
        if shape.numel() == 1:  # the value of a mean
            return pattern.mean((0, 1)).expand(*shape, -1)
        places = self.places.get((id(layer), given.shape))
        if places is None:
            places = _in_order(shape)
        elif places.shape != shape and places.dim() == 3:  # strides
            places = places[:, :: places.shape[1] // shape[1], :: places.shape[2] // shape[2]]
        if places is None or places.shape != shape:
            raise Broken(
                f"of {tuple(given.shape)} a layer of queries, keys or values makes "
                f"{tuple(made.shape)}: which positions these are cannot be seen",
                "hand it maps (B, C, H, W), or rows (B, N, C) of all positions in order",
            )
        return pattern.flatten(0, 1)[places]

    def _find_places(self) -> None:
        """Note which position stands where, in what ``query``, ``key`` and ``value`` are given."""
        count = (SIDE // self.cell) ** 2
        numbers = 2 * torch.linspace(0, 1, count, dtype=self.x.dtype)[torch.randperm(count)] ** 3
        numbers = numbers.view(1, 1, SIDE // self.cell, -1)
        numbers = numbers.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)
        x = torch.randn(1, CHANNELS, 1, 1, dtype=self.x.dtype).repeat(1, 1, SIDE, SIDE)
        x[:, :1] = numbers

        def see(layer: nn.Module, inputs: tuple[Tensor, ...], _made: object) -> None:
            rows = inputs[0].movedim(channel_dim(layer, inputs[0]), -1)[..., 0]
            if (places := _of_numbers(rows, numbers.flatten())) is not None:
                self.places[id(layer), inputs[0].shape] = places

        layers = [self.layer(name) for name in ("query", "key", "value")]
        with ExitStack() as hooks:
            for layer in (layer for layer in layers if isinstance(layer, nn.Module)):
                hooks.callback(layer.register_forward_hook(see).remove)
            self.block(x)
            self.block.maps(x)


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


def channel_dim(layer: nn.Module, features: Tensor) -> int:
    """Return which dim of what a layer is given or makes are channels."""
    kinds = (module for module in layer.modules() if isinstance(module, nn.Linear | _ConvNd))
    first = next(kinds, None)
    if first is None:
        return 1 if features.dim() == 4 else -1
    return -1 if isinstance(first, nn.Linear) else 1


def _of_numbers(rows: Tensor, numbers: Tensor) -> Tensor | None:
    """Return the position whose number each row has, but for a factor and a constant, or None.

    The numbers lie closer at their low end, so that a negative factor is seen.
    """
    known, given = numbers.unique(), rows.flatten()
    if given.shape == numbers.shape and _correlated(given, numbers):
        return torch.arange(POSITIONS).view(rows.shape)
    span = float(given.max() - given.min())
    ranks = ((given - given.min()) / max(span, 1e-12) * 1e9).round().unique(return_inverse=True)
    if len(ranks[0]) != len(known):
        return None
    first = torch.stack([(numbers == number).nonzero()[0, 0] for number in known])
    for order in (ranks[1], len(known) - 1 - ranks[1]):
        if _correlated(given, known[order]):
            return first[order].view(rows.shape)
    return None


def _correlated(a: Tensor, b: Tensor) -> bool:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1].abs()) > NEARLY


def _in_order(shape: torch.Size) -> Tensor | None:
    """Return the positions of (1, H, W) or (1, N) in row-major order, or None."""
    cell = round((POSITIONS / shape.numel()) ** 0.5)
    if shape[0] != 1 or shape.numel() * cell * cell != POSITIONS:
        return None
    return torch.arange(POSITIONS).view(SIDE, SIDE)[::cell, ::cell].reshape(shape)


class Fit(NamedTuple):
    """How o is made of the maps: per channel, o = the sum over heads of factor * (maps @ v)."""

    residual: float
    """What is left, relative."""
    factors: Tensor
    """(H, C), or (N, H, C)."""


class Sums(NamedTuple):
    """What a block makes of values that are known: fields v, each in all channels of ``value``."""

    expected: Tensor
    """(K, N, H): maps @ v, less the mean over the K fields."""
    o: list[Tensor]
    """(K, N, C): likewise of o; with ``out`` replaced by a mean over channels, and without."""

    @property
    def same_for_all(self) -> bool:
        """Whether all channels of what the sum gives are by the same maps, as of a single head."""
        wanted = self.o[-1].flatten(0, 1)
        basis = self.expected.flatten(0, 1)
        factors = torch.linalg.lstsq(basis, wanted, driver="gelsd").solution
        return bool((wanted - basis @ factors).norm() < 1e-6 * wanted.norm())

    def fit(self, *, by_position: bool = False) -> Fit:
        """Return the best fit, with factors that are those of all positions or of each."""
        fits = []
        for o in self.o:
            for rows in (o, o.mean(2, keepdim=True)):  # heads of equal width: the mean of maps
                basis, wanted = self.expected, rows
                if by_position:
                    basis, wanted = basis.transpose(0, 1), wanted.transpose(0, 1)
                else:
                    basis, wanted = basis.flatten(0, 1), wanted.flatten(0, 1)
                factors = torch.linalg.lstsq(basis, wanted, driver="gelsd").solution
                left = (wanted - basis @ factors).norm() / wanted.norm().clamp_min(1e-12)
                fits.append(Fit(float(left), factors))
        return min(fits, key=lambda fit: fit.residual)


def summed(looking: Looking, maps: Tensor) -> Sums:
    """Return what comes of known values, and what should by the maps, (H, N, M)."""
    fields = looking.on_cells(torch.randn(2 * len(maps) + 8, 1, SIDE, SIDE).to(maps)).squeeze(1)
    keys = fields[:, :: looking.cell, :: looking.cell].flatten(1)  # (K, N or fewer)
    expected = torch.einsum("hnm,km->knh", maps[..., -keys.shape[1] :], keys)
    made = []
    for field in fields:
        with looking.making(value=field[..., None]), _out(looking) as given:
            with_mean = looking.o()
        made.append((with_mean, *given))
    o = [torch.stack(each).mT for each in zip(*made, strict=True)]
    return Sums(expected - expected.mean(0), [each - each.mean(0) for each in o])


@contextmanager
def _out(looking: Looking) -> Iterator[list[Tensor]]:
    """Have ``out`` make the mean over channels; yield what it was given, (V, N), if in order."""
    layer, given = looking.layer("out"), list[Tensor]()

    def averaged(layer: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
        o = inputs[0].movedim(channel_dim(layer, inputs[0]), -1)
        if o.shape[0] == 1 and o.shape[1:-1].numel() == POSITIONS:
            given.append(o.flatten(0, -2).mT)
        channels = channel_dim(layer, made)
        mean = o.mean(-1).unsqueeze(channels)
        same = (
            mean.dim() == made.dim()
            and mean.movedim(channels, -1).shape[:-1] == (made.movedim(channels, -1).shape[:-1])
        )
        return mean.expand(made.shape) if same else made

    if not isinstance(layer, nn.Module):
        yield given
        return
    handle = layer.register_forward_hook(averaged)
    try:
        yield given
    finally:
        handle.remove()
