"""Batches of a prepared data set, each a pure function of (seed, index), at memory speed.

No worker processes: on a GPU the images live there as uint8 where they fit; else one thread reads
the next batches from the memory map while the networks work on this one.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan_bench.core import system
from sagan_bench.core.seeding import generator
from sagan_bench.data.store import Split

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that images may take up."""
AHEAD = 2
"""Batches that are read before they are asked for."""


class Batch(NamedTuple):
    """Images uint8 (size, 3, S, S) and labels int64 (size,)."""

    images: Tensor
    labels: Tensor


def batch(split: Split, seed: int, index: int, size: int, *, flip: bool = False) -> Batch:
    """Return batch ``index`` of the stream of ``seed`` on the CPU: random access, nothing kept.

    An epoch is a permutation of the images, drawn from ``(seed, "data", epoch)``; what is left over
    below one batch waits for another epoch. ``flip`` mirrors each image with probability 1/2, drawn
    from ``(seed, "flip", index)``.
    """
    rows = _rows(len(split), seed, index, size)
    images = torch.from_numpy(split.images[rows])
    if flip:
        images = _mirror(images, _mirrored(seed, index, size))
    return Batch(images, torch.from_numpy(split.labels[rows]))


def _rows(count: int, seed: int, index: int, size: int) -> NDArray[np.int64]:
    epoch, position = divmod(index, count // size)
    return _permutation(seed, epoch, count)[position * size : (position + 1) * size]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator(seed, "data", epoch)).numpy()


def _mirrored(seed: int, index: int, size: int) -> Tensor:
    return torch.rand(size, generator=generator(seed, "flip", index)) < 0.5


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


class Feed:
    """The batches of one run, on its device; what `batch` returns, only sooner.

    Best asked in the order of their indices. A context manager: its end stops the reading thread.
    Of each batch, ``part`` takes the rows that this process of the run needs.
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        size: int,
        device: torch.device,
        *,
        flip: bool = False,
        part: Callable[[Tensor], Tensor] = lambda whole: whole,
    ) -> None:
        self.split, self.seed, self.size, self.device, self.flip = split, seed, size, device, flip
        self.part = part
        self.resident = _resident(split, device)
        self.reader = ThreadPoolExecutor(1, "feed")
        self.coming: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reader.shutdown(cancel_futures=True)

    def __call__(self, index: int) -> Batch:
        """Return batch ``index`` on the device."""
        rows = self._chosen(index) if self.resident else self._read(index)
        images, labels = (part.to(self.device, non_blocking=True) for part in rows)
        if self.flip:
            mirrored = self.part(_mirrored(self.seed, index, self.size))
            images = _mirror(images, system.sent(mirrored, self.device))
        return Batch(images, labels)

    def _chosen(self, index: int) -> Batch:
        assert self.resident
        rows = system.sent(self._wanted(index), self.device)
        return Batch(self.resident.images[rows], self.resident.labels[rows])

    def _read(self, index: int) -> Batch:
        self.coming = {
            wanted: self.coming.get(wanted) or self._submit(wanted)
            for wanted in range(index, index + AHEAD + 1)
        }
        return self.coming[index].result()

    def _submit(self, index: int) -> "Future[Batch]":
        rows = self._wanted(index)
        shape, pinned = (len(rows), *self.split.images.shape[1:]), self.device.type == "cuda"
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(rows), dtype=torch.int64, pin_memory=pinned)
        return self.reader.submit(_fill, self.split, rows.numpy(), Batch(images, labels))

    def _wanted(self, index: int) -> Tensor:
        return self.part(torch.from_numpy(_rows(len(self.split), self.seed, index, self.size)))


def _fill(split: Split, rows: NDArray[np.int64], into: Batch) -> Batch:
    # By numpy: torch would start a second pool of threads for this one.
    np.take(split.images, rows, axis=0, out=into.images.numpy(), mode="clip")
    np.take(split.labels, rows, axis=0, out=into.labels.numpy(), mode="clip")
    return into


def _resident(split: Split, device: torch.device) -> Batch | None:
    """Return all images and labels on a GPU, where they fit; else None."""
    if device.type != "cuda":
        return None
    key = getattr(split.images, "filename", id(split)), device
    if key not in _on_gpu:
        free, _ = torch.cuda.mem_get_info(device)
        if split.images.nbytes > RESIDENT_SHARE * free:
            return None
        _on_gpu.clear()
        moved = Batch(_moved(split.images, device), _moved(split.labels, device))
        _on_gpu[key] = split, moved  # the split too: no other may take its id
    return _on_gpu[key][1]


_on_gpu: dict[object, tuple[Split, Batch]] = {}
"""The one data set that this process keeps on a GPU, for all its cells."""

_BYTES_AT_ONCE = 2**28


def _moved(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array to a GPU in pieces, so that a large one takes little memory on the way."""
    rows = max(1, _BYTES_AT_ONCE // max(1, array[:1].nbytes))
    whole = torch.empty(array.shape, dtype=torch.from_numpy(array[:0].copy()).dtype, device=device)
    for start in range(0, len(array), rows):
        whole[start : start + rows] = torch.from_numpy(array[start : start + rows].copy())
    return whole
