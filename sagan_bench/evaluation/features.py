"""Images -> features, by any extractor."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan_bench.core.precision import full_precision
from sagan_bench.evaluation.extractors import Extractor

Images = NDArray[np.uint8] | Tensor
"""uint8 (N, 3, S, S), in memory or memory-mapped."""


@dataclass(frozen=True)
class Features:
    """What an extractor saw in N images: ``pool`` (N, d) and ``logits`` (N, classes), float32.

    Without classes, ``logits`` is (N, 0).
    """

    pool: Tensor
    logits: Tensor


def extract(
    extractor: Extractor,
    images: Images,
    rows: NDArray[np.int64] | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Return the features of ``images`` (or of those in ``rows``, in that order) on the CPU.

    Computed in fp32 whatever the surrounding precision; torch's random state is left as it was.

    Args:
        extractor: loaded, on the device where it computes.
        images: uint8 (N, 3, S, S).
        rows: indices into ``images``.
        progress: called with the number of images just finished.

    Raises:
        ValueError: images of another shape or dtype.
    """
    device = torch.device(extractor.device)
    size = extractor.batch_images[device.type]
    rows = np.arange(len(images)) if rows is None else rows
    batches = []
    with torch.random.fork_rng(devices=[]), full_precision(), torch.inference_mode():
        for start in range(0, len(rows), size):
            batch = _pixels(images, rows[start : start + size])
            pool, *logits = (layer.cpu() for layer in extractor.network(batch.to(device)))
            batches.append((pool, *(logits or [pool.new_empty(len(pool), 0)])))
            progress(len(batch))
    return Features(*(torch.cat(layer) for layer in zip(*batches, strict=True)))


def _pixels(images: Images, rows: NDArray[np.int64]) -> Tensor:
    batch = torch.as_tensor(images[rows])  # indexing by rows copies, also from a read-only map
    if batch.dtype != torch.uint8 or batch.dim() != 4 or batch.shape[1] != 3:
        raise ValueError(f"expected uint8 (N, 3, S, S), got {batch.dtype} {tuple(batch.shape)}")
    return batch
