"""What blocks are told while their network runs: noise, classes, and the step."""

import torch
from torch import Tensor, nn

from sagan_bench.core.errors import UserError
from sagan_bench.models.attention._blocks import Block, Call
from sagan_bench.models.layers import at_least_fp32


def knowing(network: nn.Module) -> list[Block]:
    """Return the blocks of a network that want to know anything."""
    return [each for each in network.modules() if isinstance(each, Block) and each.knows]


def connect(network: nn.Module) -> None:
    """Have a network tell its blocks what they want to know whenever it runs; copies do too."""
    if knowing(network):
        network.register_forward_pre_hook(tell)
        network.register_forward_hook(_forget)


def tell(network: nn.Module, given: tuple[Tensor | None, ...]) -> None:
    """Tell the blocks of a network what it is given: noise or images, labels, and a mix of them."""
    first, labels, *mix = (*given, None)[: max(2, len(given))]
    if labels is not None and len(mix) > 1 and mix[0] is not None and mix[1] is not None:
        labels = torch.where(mix[1] < 0.5, labels, mix[0])  # of two classes the nearer
    for block in knowing(network):
        assert block.site
        knows, is_g = block.knows, block.site.network == "generator"
        classes = labels.repeat(2) if labels is not None and block.site.halves else labels
        block.hear(
            Call(
                z=first if is_g and "z" in knows else None,
                labels=classes if "labels" in knows else None,
                step=block.get_buffer("run_step") if "step" in knows else None,
                steps=block.steps if "step" in knows else None,
            )
        )


def forget(network: nn.Module) -> None:
    """Leave nothing of what a network was given behind in its blocks."""
    for block in knowing(network):
        block.hear(None)


def _forget(network: nn.Module, _given: object, _result: object) -> None:
    forget(network)


@torch.no_grad()
def begin_step(network: nn.Module, step: int) -> None:
    """Have the blocks of a network that want to know it be at a step."""
    for block in knowing(network):
        if "step" in block.knows:
            block.get_buffer("run_step").fill_(step)


def extra_loss(network: nn.Module) -> Tensor | None:
    """Return the sum of what blocks in training add to their network's loss, none where none can.

    Raises:
        UserError: what a block adds is no number that a gradient can be taken of.
    """
    adding = [
        each
        for each in network.modules()
        if isinstance(each, Block)
        and each.training
        and type(each).extra_loss is not Block.extra_loss
    ]
    if not adding:
        return None
    added = []
    for block in adding:
        loss = block.extra_loss()
        if loss is None:
            loss = torch.zeros((), device=block.gamma.device)
        elif not isinstance(loss, Tensor) or loss.dim():
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(
                f"{type(block).__name__}.extra_loss() returns {shape}; return a scalar, e.g. by "
                "mean(), or None"
            )
        added.append(at_least_fp32(loss))
    return torch.stack(added).sum()
