"""This machine's cores and GPUs, shared out among runs."""

from typing import NamedTuple

import torch

from sagan_bench.core import cpu, system


class Slot(NamedTuple):
    """Room for one run at a time."""

    device: str
    threads: int
    shared_by: int
    """Slots on the device: their times are not those of a device of one's own."""


def slots(jobs: int | None, device: str, runs: int) -> list[Slot]:
    """Share cores and GPUs out among ``jobs`` runs at a time.

    By default one a GPU, or one a core: small networks gain more from a process than from a thread.

    Args:
        jobs: runs at a time, or None.
        device: ``auto`` is every GPU, or the CPU.
        runs: in all; more slots would stay empty.

    Raises:
        UserError: the device is not there.
    """
    chosen = system.device(device)
    if chosen.type == "cuda" and chosen.index is None and device == "auto":
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        devices = [str(chosen)]
    most = cpu.cores() if chosen.type == "cpu" else len(devices)
    jobs = max(1, min(jobs or most, runs))
    threads = max(1, cpu.cores() // jobs)
    placed = [devices[index % len(devices)] for index in range(jobs)]
    return [Slot(name, threads, placed.count(name)) for name in placed]
