"""What a block with maps may offer besides: `through` and `logits`, to be looked into by."""

import torch

from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject
from sagan_bench.experiments.conformance._parts import block_of, fed, labels_of, noise_of
from sagan_bench.models.attention._interventions import refusal
from sagan_bench.models.calls import forget, tell

TOLERANCE = 5e-3
"""Of a map's entries: they may be rounded to half precision."""


@torch.no_grad()
def through(subject: Subject) -> str:
    """Values summed by a block's own maps are what it adds, so that others can be put in place."""
    block = block_of(subject, gamma=1.0)
    owner = next(each for each in type(block).__mro__ if "through" in vars(each))
    x = fed(block)
    tell(block, (noise_of(x), labels_of(x)))
    try:
        why = refusal(block, x)
    finally:
        forget(block)
    if why is None:
        return "o of its own maps by through(maps, x): probes can change them"
    if owner.__module__.startswith("sagan_bench."):
        raise Skipped(f"probes change it by leaving out its branch alone: {why}")
    raise Broken(why, "return from through(maps, x) what branch(x) does, by the maps given")


@torch.no_grad()
def logits(subject: Subject) -> str:
    """A block's maps are the softmax of its logits."""
    block = block_of(subject)
    x = fed(block)
    tell(block, (noise_of(x), labels_of(x)))
    try:
        told, maps = block.own_logits(x), block.maps(x)
    finally:
        forget(block)
    if told is None or maps is None:
        raise Skipped("it tells no logits of its maps")
    if told.shape != maps.shape:
        raise Broken(
            f"logits(x) is {tuple(told.shape)}, and maps(x) {tuple(maps.shape)}",
            "return what the maps are the softmax of, in their shape",
        )
    off = float((told.softmax(-1) - maps).abs().max())
    if not off < TOLERANCE:
        raise Broken(
            f"its maps are not the softmax of its logits: {off:.2g} off",
            "return what softmax is taken of, factors included; or leave logits out",
        )
    return "its maps are the softmax of its logits"


HOOKS = (through, logits)
