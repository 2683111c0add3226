"""What a block costs: parameters, FLOPs, memory for the backward pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from sagan_bench.experiments.conformance._findings import Subject
from sagan_bench.experiments.conformance._parts import block_of, fed
from sagan_bench.models.layers import forward_flops

SIDE = 16


class Costs(NamedTuple):
    """Of a block for `CHANNELS` channels at side `SIDE`, for an image."""

    parameters: int
    flops: int
    """Of products, forward."""
    saved_bytes: int
    """What the backward pass needs of the forward pass, in fp32, its parameters left out."""


def of_block(subject: Subject) -> Costs | None:
    """Return the costs of a kind's block, or None where there is none, or it does not run."""
    if not subject.component.has_block:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            block = block_of(subject, side=SIDE)
            x = fed(block, images=1)
            saved: dict[int, int] = {}

            def keep(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                saved[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                y = block(x)
            for weight in block.parameters():
                saved.pop(weight.untyped_storage().data_ptr(), None)
            del y
            parameters = sum(weight.numel() for weight in block.parameters())
            return Costs(parameters, forward_flops(block, x), sum(saved.values()))
    except Exception:  # noqa: BLE001  # the user's; the checks say what it is
        return None
