"""What attention does in a network: how strongly it acts, where it looks and how far."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan_bench.core.precision import full_precision
from sagan_bench.models.attention._blocks import Block, Call
from sagan_bench.models.attention._interventions import refusal
from sagan_bench.models.attention._shares import MassOnTwin, weighted
from sagan_bench.models.build import attention_blocks
from sagan_bench.models.calls import forget, tell

QUERY_POINTS = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""The positions whose maps are kept, (row, column) in sides: the centre and the quarter points."""

MAP_FIGURES = ("entropy", "entropy_max", "distance_px", "largest_logit", "mass", "chance")

CHUNK_IMAGES = 16
"""Images whose features are held at a time; of whole maps, those of one image."""


@dataclass(frozen=True)
class MapDiagnostics:
    """The maps beta of one block; figures are means over queries, then over images.

    Attributes:
        entropy: of a query's distribution over the keys, in nats.
        entropy_max: log M, that of a query that looks at all M keys alike.
        distance_px: expected distance from query to key, in pixels of the image.
        queries: (row, column) of the `QUERY_POINTS` on the feature map.
        beta: float32 (images, queries, rows, columns), the maps of these queries over the keys.
        largest_logit: of all keys, queries and images, before the softmax; none where the block
            does not tell its logits, or they are not finite.
        mass: what a part of an image takes in from the part that it must agree with, as a share,
            weighted by |beta v| (`sagan_bench.models.attention._shares`); none where nobody said
            which parts these are, where no image has both, or without ``through(maps, x)``.
        chance: likewise, by the maps of other images.
    """

    entropy: float
    entropy_max: float
    distance_px: float
    queries: tuple[tuple[int, int], ...]
    beta: NDArray[np.float32]
    largest_logit: float | None = None
    mass: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class BlockDiagnostics:
    """One block of attention, or what stands in its place.

    Attributes:
        gamma: the block's factor in y = x + gamma * o; NaN for one without it.
        ratio: ||gamma * o|| / ||x||, mean over images; not finite if x is zero throughout an image,
            or if the block stands instead of a layer.
        maps: none where the block has no maps.
    """

    gamma: float
    ratio: float
    maps: MapDiagnostics | None

    def figures(self) -> dict[str, float]:
        """Return the figures that there are, without the maps themselves."""
        of_maps = {key: getattr(self.maps, key, None) for key in MAP_FIGURES}
        known = {key: value for key, value in of_maps.items() if value is not None}
        return {"gamma": self.gamma, "ratio": self.ratio, **known}


def diagnose(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor | None = None,
    *,
    pictured: int = 4,
    parts: Tensor | None = None,
) -> dict[str, BlockDiagnostics]:
    """Return the diagnostics of each block of a network, by the block's name.

    The network is looked at in evaluation mode and fp32, and left as it was.  For G pass the
    ``standing`` one: the BatchNorm statistics of training lag behind the weights.  A discriminator
    that sees halves has twice as many images, of half the width, the left ones first.

    Args:
        network: G or D.
        inputs: noise (B, z_dim) for G, or images (B, 3, S, S) in [-1, 1] for D; B at least 1.
        labels: (B,), where the network has classes.
        pictured: of how many images, the first ones, the maps are kept; at least 1.
        parts: (B, 2, S, S) bool, the pixels of the two parts of each image that must agree, where
            it has such.  Halves of images are looked at without.
    """
    looks: dict[str, list[_Look]] = defaultdict(list)
    masses: dict[str, MassOnTwin] = defaultdict(MassOnTwin)
    blocks = attention_blocks(network)
    if not blocks:
        return {}
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), full_precision():
            for start in range(0, len(inputs), CHUNK_IMAGES):
                chunk = slice(start, start + CHUNK_IMAGES)
                of_chunk = None if labels is None else labels[chunk]
                features, side = _features(network, inputs[chunk], of_chunk)
                of_parts = None if parts is None else parts[chunk]
                for name, (x, call) in features.items():
                    block, has_parts = blocks[name], _has_parts(blocks[name], x, call, of_parts)
                    for index, image in enumerate(x.split(1)):
                        keeps = len(looks[name]) < pictured
                        block.hear(call and call.of_image(index))
                        looks[name].append(_look(block, image, keeps))
                        if of_parts is not None and has_parts:
                            own = of_parts[index : index + 1].to(x.device)
                            masses[name].add(weighted(block, image), own)
            return {name: _read(blocks[name], looks[name], side, masses[name]) for name in looks}
    finally:
        forget(network)
        network.train(training)


def entropy(beta: Tensor) -> Tensor:
    """Return -sum over i of beta_{j,i} log beta_{j,i} in nats, mean over the queries j: a scalar.

    beta: (N, M).
    """
    return torch.special.entr(beta).sum(dim=1).mean()


def distance(beta: Tensor, rows: int, columns: int) -> Tensor:
    """Return sum over i of beta_{j,i} ||p_j - p_i||, mean over the queries j: a scalar.

    Distances are those of centres, in cells of the feature map.  A key pooled from 2 x 2 cells
    lies at their common centre, whichever of them was the largest.

    Args:
        beta: (N, M) with N = ``rows`` * ``columns``; M = N, or less where keys are pooled.
        rows: of the feature map.
        columns: likewise.
    """
    queries, keys = (_centres(rows, columns, size, beta) for size in (1, _key_side(beta)))
    return (beta * torch.cdist(queries, keys)).sum(dim=1).mean()


def _key_side(beta: Tensor) -> int:
    """Return the side of a key in cells: 1, or more where keys are pooled."""
    return math.isqrt(beta.shape[0] // beta.shape[1])


def _centres(rows: int, columns: int, size: int, like: Tensor) -> Tensor:
    """Return the centres of the patches of ``size`` x ``size`` cells, row-major: (patches, 2)."""
    along = (
        torch.arange(0, cells, size, dtype=like.dtype, device=like.device) + size / 2
        for cells in (rows, columns)
    )
    return torch.cartesian_prod(*along)


def _features(
    network: nn.Module, inputs: Tensor, labels: Tensor | None
) -> tuple[dict[str, tuple[Tensor, Call | None]], int]:
    """Return what each block receives and is told, by its name, and the side of the images."""
    received: dict[str, tuple[Tensor, Call | None]] = {}
    hooks = [
        block.register_forward_pre_hook(
            lambda block, given, name=name: received.update({name: (given[0], block.heard)})
        )
        for name, block in attention_blocks(network).items()
    ]
    tell(network, (inputs, labels))
    try:
        output = network.forward(inputs, labels)  # a call would compile a compiled network anew
    finally:
        for hook in hooks:
            hook.remove()
    images = inputs if inputs.dim() == 4 else output
    return received, images.shape[2]


class _Look(NamedTuple):
    """What one image shows of a block, where it was computed: numbers, and the maps kept of it."""

    figures: Tensor
    """(1,), the ratio, or with maps (4,): entropy, distance in cells, largest logit or NaN."""
    shape: tuple[int, int]
    """Rows and columns of the feature map."""
    keys: int = 0
    beta: Tensor | None = None
    """(queries, M)."""


def _look(block: Block, x: Tensor, keeps: bool) -> _Look:
    """Return what one image's features, (1, C, H, W), show; its maps too if it ``keeps`` them."""
    o = _added(block, x)
    ratio, (rows, columns) = o.norm() / x.norm(), x.shape[2:]
    maps = None if block.replaces else block.maps(x)
    if maps is None:
        return _Look(ratio[None], (rows, columns))
    whole = maps[0].mean(0) if maps.dim() == 4 else maps[0]
    beta = whole[:, -len(whole) :]  # null keys, which come first, are nowhere
    logits = block.own_logits(x)
    largest = ratio.new_full((), torch.nan) if logits is None else logits.amax()
    figures = torch.stack([ratio, entropy(whole), distance(beta, rows, columns), largest])
    places = [row * columns + column for row, column in _queries(rows, columns)]
    kept = torch.stack([beta[place] for place in places]) if keeps else None
    return _Look(figures, (rows, columns), whole.shape[1], kept)


def _has_parts(block: Block, x: Tensor, call: Call | None, parts: Tensor | None) -> bool:
    """Return whether it can be told what a block takes in from parts of the images of x."""
    if parts is None or len(parts) != len(x) or block.replaces:
        return False
    block.hear(call)
    return refusal(block, x) is None


def _added(block: Block, x: Tensor) -> Tensor:
    """Return what a block adds to x; nothing of the kind, NaN, where it makes another map of it."""
    if block.replaces:
        return x.new_full((), torch.nan)
    if type(block).forward is Block.forward:
        return (block.gamma * block.branch(x)).expand_as(x)
    return torch.sub(block(x), x)


def _queries(rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    return tuple((int(rows * y), int(columns * x)) for y, x in QUERY_POINTS)


def _read(
    block: Block, looks: Sequence[_Look], image_side: int, masses: MassOnTwin
) -> BlockDiagnostics:
    """Return the means over images: one read from the device, and one of the maps that are kept."""
    gamma, *values = torch.cat([block.gamma, *(look.figures for look in looks)]).tolist()
    gamma = gamma if block.has_gamma else math.nan
    if not looks[0].keys:
        return BlockDiagnostics(gamma, fmean(values), None)
    rows, columns = looks[0].shape
    kept = torch.stack([look.beta for look in looks if look.beta is not None])
    side = math.isqrt(rows * columns // kept.shape[2])
    largest, mass = max(values[3::4]), masses.mass()
    maps = MapDiagnostics(
        entropy=fmean(values[1::4]),
        entropy_max=math.log(looks[0].keys),
        distance_px=fmean(each * image_side / rows for each in values[2::4]),
        queries=_queries(rows, columns),
        beta=kept.unflatten(2, (rows // side, columns // side)).float().cpu().numpy(),
        largest_logit=largest if math.isfinite(largest) else None,
        mass=mass.mass if mass else None,
        chance=mass.chance if mass else None,
    )
    return BlockDiagnostics(gamma, fmean(values[::4]), maps)
