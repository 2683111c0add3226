"""The training state of a run that ended, without the weights that its exported file holds too.

What is left out is left out to the bit, tensor by tensor.  The file of exported weights has plain
ones: of a layer with spectral norm W / sigma, from which the bits of W cannot be had again, so that
such a weight is in both.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

EXPORTED = {"generator": "raw", "ema": "ema"}
"""Part of a training state -> what the file of exported weights calls its plain weights."""
ELSEWHERE = "in_weights"
"""Where a lean state says what it lacks: ``sha256`` of the file that has it, and names by part."""


def lean(state: Mapping[str, Any], weights: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    """Return a training state without the tensors that exported weights hold bit for bit.

    Args:
        state: as a checkpoint has it.
        weights: the exported ones, of the same step.
        sha256: of the file that holds them.
    """
    shared = {
        part: [name for name, value in state[part].items() if _same(value, weights[kind].get(name))]
        for part, kind in EXPORTED.items()
    }
    left = {
        part: {name: value for name, value in state[part].items() if name not in names}
        for part, names in shared.items()
    }
    return {**state, **left, ELSEWHERE: {"sha256": sha256, **shared}}


def whole(state: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return a lean training state with what it lacks; `lean` backwards."""
    names = state[ELSEWHERE]
    filled = {
        part: {**state[part], **{name: weights[kind][name] for name in names[part]}}
        for part, kind in EXPORTED.items()
    }
    return {key: filled.get(key, value) for key, value in state.items() if key != ELSEWHERE}


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, uint8 (bytes,), in the order of its elements, on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _same(value: Tensor, other: Tensor | None) -> bool:
    if other is None or (value.dtype, value.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(bits(value), bits(other))
