"""Blocks and what they are fed, for checks."""

from typing import Any

import torch
from torch import Tensor

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.experiments.conformance._findings import Broken, Subject
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.build import begin
from sagan_bench.models.placed import Site

CHANNELS = 64
"""Of maps, where nothing else is said: C / 8 = 8 is enough for heads."""
SIDE = 8
MIXED = 0.1
"""Added to all weights, times normal noise: what starts at zero hides nothing."""


def block_of(
    subject: Subject,
    channels: int = CHANNELS,
    *,
    gamma: float | None = 0.5,
    double: bool = False,
    bias: bool = True,
    **attention: Any,
) -> Block:
    """Return a block as networks have it, its weights mixed, in evaluation mode.

    Args:
        subject: a kind of attention.
        channels: C.
        gamma: of the block; none leaves it as it starts.
        double: whether gradients of gradients will be taken.
        bias: whether convolutions have one.
        attention: of `AttentionConfig`.

    Raises:
        Broken: it makes no `Block`.
    """
    kind = subject.component(AttentionConfig(kind=subject.name, **attention))
    site = Site("generator", SIDE, channels, bias=bias, needs_double_backward=double)
    with torch.device("meta"):
        block = kind.block(site)
    if not isinstance(block, Block):
        raise Broken(
            f"block() returns a {type(block).__name__}",
            "return a module whose class extends sagan_bench.models.attention._blocks.Block",
        )
    begin(block, 0, "block")
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if name != "gamma":
                weight.add_(MIXED * torch.randn(weight.shape))
        if gamma is not None:
            block.gamma.fill_(gamma)
    return block.eval()


def features(
    channels: int = CHANNELS, side: int = SIDE, images: int = 3, width: int | None = None
) -> Tensor:
    """Return normal x, (B, C, H, W), channels-last."""
    x = torch.randn(images, channels, side, width or side)
    return x.contiguous(memory_format=torch.channels_last)


def off(a: Tensor | None, b: Tensor | None) -> float:
    """Return |a - b| / |b|, in fp64; infinite where shapes differ or a number is not finite."""
    if a is None or b is None:
        return float("inf")
    a, b = a.detach().double(), b.detach().double()
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    return float((a - b).norm() / b.norm().clamp_min(1e-12))
