"""A generator's images as they are scored: exactly so many, finite, and 8 bits deep."""

from collections.abc import Callable

import torch
from torch import Tensor

from sagan_bench.data.pixels import quantise

Sample = Callable[[int, int, int], Tensor]
"""``sample(seed, start, stop)``: images start..stop, float (stop - start, 3, S, S) in [-1, 1]."""


class NonFiniteImages(ArithmeticError):
    """A generator made NaN or infinity, which rounding would turn into plausible black pixels."""

    def __init__(self, index: int) -> None:
        super().__init__(f"generated image {index} is not finite")
        self.index = index


def sample_images(
    sample: Sample,
    n: int,
    seed: int,
    batch: int,
    progress: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Return exactly ``n`` generated images, uint8 (n, 3, S, S), whatever the batch size.

    ``progress`` is called with the number of images just finished.

    Raises:
        NonFiniteImages: with the index of the first.
    """
    parts = []
    for start in range(0, n, batch):
        images = sample(seed, start, min(start + batch, n))
        finite = images.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise NonFiniteImages(start + int(finite.int().argmin()))
        parts.append(quantise(images).cpu())
        progress(len(images))
    return torch.cat(parts).contiguous()
