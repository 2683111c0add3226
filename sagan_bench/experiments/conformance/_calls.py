"""What a block is told at each call, and what it adds to its network's loss."""

import torch
from torch import Tensor

from sagan_bench.experiments.conformance._alone import TOLERANCE
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject, Unusual
from sagan_bench.experiments.conformance._parts import (
    CLASSES,
    STEP,
    STEPS,
    Z_DIM,
    block_of,
    fed,
    labels_of,
    off,
)
from sagan_bench.models import calls
from sagan_bench.models.attention._blocks import Block, Call


@torch.no_grad()
def knows(subject: Subject) -> str:
    """What a block is told changes what it makes, or what it adds to the loss."""
    words = subject.component.knows
    if not words:
        raise Skipped("it wants to know nothing")
    block = block_of(subject)
    x = fed(block)
    z, labels = torch.randn(2, len(x), Z_DIM), labels_of(x)
    first = Call(
        z[0] if "z" in words else None,
        labels if "labels" in words else None,
        torch.tensor(STEP) if "step" in words else None,
        STEPS if "step" in words else None,
    )
    others = {
        "z": first._replace(z=z[1]),
        "labels": first._replace(labels=(labels + 1) % CLASSES),
        "step": first._replace(step=torch.tensor(2 * STEP)),
    }
    before = _made(block, x, first)
    if unused := [word for word in words if _made(block, x, others[word]).equal(before)]:
        raise Unusual("unused", f"it is told {', '.join(unused)}, and does the same whatever it is")
    return f"it uses {', '.join(words)}"


def _made(block: Block, x: Tensor, call: Call) -> Tensor:
    """Return all that a block makes when it is told ``call``: in evaluation, and what it adds."""
    torch.manual_seed(0)
    block.hear(call)
    try:
        y, _ = block.eval()(x), block.train()(x)
        added = calls.extra_loss(block)
    finally:
        block.eval().hear(None)
    return torch.cat([y.flatten(), torch.zeros(1) if added is None else added[None]])


def extra_loss(subject: Subject) -> str:
    """An extra loss is a finite number, a mean over images, and reaches the block's parameters."""
    block = block_of(subject).train()
    x = fed(block)
    added = _added(block, x)
    if added is None:
        raise Skipped("it has none")
    if not added.isfinite():
        raise Broken(f"extra_loss() is {float(added)} on normal inputs")
    if added.requires_grad:
        added.backward()
    if not any(weight.grad is not None and weight.grad.any() for weight in block.parameters()):
        raise Broken(
            "no gradient of extra_loss() reaches a parameter",
            "return what the last forward in training left, without detach() or item()",
        )
    again, twice = _added(block, x), _added(block, torch.cat([x, x]))
    if off(again, added) <= TOLERANCE < off(twice, added):
        raise Broken(
            f"extra_loss() of a batch twice is {_shown(twice)}, of it {_shown(added)}",
            "take the mean over images: micro-batches are averaged",
        )
    return f"{_shown(added)} here, a mean over images"


def _added(block: Block, x: Tensor) -> Tensor | None:
    block(x)
    return calls.extra_loss(block)


def _shown(value: Tensor | None) -> str:
    return "none" if value is None else f"{float(value):.4g}"


CALLS = (knows, extra_loss)
