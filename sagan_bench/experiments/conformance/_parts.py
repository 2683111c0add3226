"""Blocks, what they are fed and what they are told, for checks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.experiments.conformance._findings import Broken, Subject
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.build import begin
from sagan_bench.models.calls import begin_step, forget, tell
from sagan_bench.models.placed import Network, Site

CHANNELS = 64
"""Of maps, where nothing else is said: C / 8 = 8 is enough for heads."""
SIDE = 8
MIXED = 0.1
"""Added to all weights, times normal noise: what starts at zero hides nothing."""
Z_DIM, CLASSES = 8, 3
"""Of the networks in which a block is made to believe."""
STEP, STEPS = 3, 10
"""That it is told, and of how many."""


def replaces(subject: Subject) -> bool:
    """Return whether blocks of a kind stand instead of a layer."""
    return getattr(subject.component, "place", "after") == "instead"


def block_of(
    subject: Subject,
    channels: int = CHANNELS,
    *,
    side: int = SIDE,
    network: Network = "generator",
    halves: bool = False,
    gamma: float | None = 0.5,
    double: bool = False,
    **attention: Any,
) -> Block:
    """Return a block as networks have it, its weights mixed, in evaluation mode.

    Args:
        subject: a kind of attention.
        channels: C.
        side: of the map that it makes.
        network: in which it stands.
        halves: whether maps are half as wide.
        gamma: of the block, if it has one; none leaves it as it starts.
        double: whether gradients of gradients will be taken.
        attention: of `AttentionConfig`.

    Raises:
        Broken: it makes no `Block`.
    """
    kind = subject.component(AttentionConfig(kind=subject.name, **attention))
    site = replace(
        _site(subject, channels, side, network), needs_double_backward=double, halves=halves
    )
    with torch.device("meta"):
        block = kind.block(site)
        if not isinstance(block, Block):
            raise Broken(
                f"block() returns a {type(block).__name__}",
                "return a module whose class extends sagan_bench.models.attention._blocks.Block",
            )
        block.stand_at(site, kind.knows, replaces=replaces(subject))
    begin(block, 0, "block")
    block.steps = STEPS
    begin_step(block, STEP)
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if name != "gamma":
                weight.add_(MIXED * torch.randn(weight.shape))
        if gamma is not None and block.has_gamma:
            block.gamma.fill_(gamma)
    _telling(block)
    return block.eval()


def _site(subject: Subject, channels: int, side: int, network: Network) -> Site:
    """Return a site in networks as `dcgan`'s, with classes for a kind that knows them."""
    is_g, comes = network == "generator", replaces(subject)
    return Site(
        network,
        side,
        channels,
        channels_in=(2 * channels if is_g else channels // 2) if comes else 0,
        side_in=(side // 2 if is_g else 2 * side) if comes else 0,
        norm="batch" if is_g else "none",
        z_dim=Z_DIM,
        classes=CLASSES if "labels" in subject.component.knows else 0,
    )


def _telling(block: Block) -> None:
    """Have a block be told, whenever it runs, what goes with the images that it is fed."""
    for name in ("forward", "maps") if block.knows else ():
        setattr(block, name, _hearing(block, getattr(block, name)))


def _hearing(block: Block, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def run(x: Tensor) -> Any:
        if block.heard is not None:  # from within, or as a check will have it
            return function(x)
        halves = block.site is not None and block.site.halves
        tell(block, (noise_of(x), labels_of(x)[: len(x) // 2 if halves else None]))
        try:
            return function(x)
        finally:
            forget(block)

    return run


@torch.no_grad()
def noise_of(x: Tensor) -> Tensor:
    """Return z (B, Z_DIM) that is the same for an image in any batch, its positions permuted."""
    return x.mean(dim=(2, 3))[:, torch.arange(Z_DIM) % x.shape[1]] * x.shape[2]


def labels_of(x: Tensor) -> Tensor:
    """Return classes (B,) as `noise_of`."""
    return (x.double().mean(dim=(1, 2, 3)) > 0).long()


def features(
    channels: int = CHANNELS, side: int = SIDE, images: int = 3, width: int | None = None
) -> Tensor:
    """Return normal x, (B, C, H, W), channels-last."""
    x = torch.randn(images, channels, side, width or side)
    return x.contiguous(memory_format=torch.channels_last)


def fed(block: Block, images: int = 3) -> Tensor:
    """Return x as it comes to a block."""
    site = block.site
    assert site
    width = site.side_in // 2 if site.halves else None
    return features(site.channels_in, site.side_in, images, width)


def off(a: Tensor | None, b: Tensor | None) -> float:
    """Return |a - b| / |b|, in fp64; infinite where shapes differ or a number is not finite."""
    if a is None or b is None:
        return float("inf")
    a, b = a.detach().double(), b.detach().double()
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    return float((a - b).norm() / b.norm().clamp_min(1e-12))
