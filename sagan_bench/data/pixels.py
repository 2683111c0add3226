"""The one mapping between uint8 pixels and the networks' range [-1, 1]."""

import torch
from torch import Tensor


def normalise(pixels: Tensor) -> Tensor:
    """Return uint8 ``pixels`` of any shape as float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.float().div_(127.5).sub_(1)  # the copy is ours


def to_network(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images (B, 3, S, S) as networks take them: in [-1, 1], channels-last."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)  # bytes move sooner
    return normalise(pixels).to(dtype)


def quantise(images: Tensor) -> Tensor:
    """Return finite float ``images`` of any shape as uint8: (x + 1) * 127.5, rounded half to even.

    Values outside [-1, 1] are clamped.  The sum is taken in float32: bf16 has no room for 256
    levels.
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
