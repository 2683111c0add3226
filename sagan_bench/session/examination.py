"""What works on this machine, and what to do about what does not."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from sagan_bench.core import cpu, system
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data.store import cache_root

NEEDED_DISK_GIB = 2.0


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    needed: bool
    """Nothing runs without it."""
    text: str


def examine() -> list[Finding]:
    """Look at everything that a run needs or could use."""
    return [*_machine(), *_extractors(), _writable(cache_root()), _disk(cache_root())]


def _machine() -> Iterator[Finding]:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    yield Finding("software", True, True, versions)
    device = system.device()
    name = f"{device}: {system.device_name(device)}, {cpu.cores()} CPU cores"
    if sys.platform == "darwin":
        name += "; a Mac's GPU is not used (docs/gpu.md)"
    yield Finding("device", True, True, name)
    if device.type == "cuda":
        yield _gpus()
    if system.multiplies_bf16(device):
        yield Finding("precision", True, False, "bf16 (auto); fp32 with --precision fp32")
    else:
        yield Finding("precision", True, False, "fp32 (auto): no bf16 in this hardware")


def _gpus() -> Finding:
    """Say how many there are, and whether cells that share one run at the same time."""
    service = (
        "the Multi-Process Service runs: cells on one GPU (--jobs) run at the same time"
        if multi_process_service_runs()
        else "cells on one GPU (--jobs) take turns; to run them at the same time: "
        "nvidia-cuda-mps-control -d (docs/gpu.md)"
    )
    return Finding("GPUs", True, False, f"{torch.cuda.device_count()}; {service}")


def multi_process_service_runs() -> bool:
    """Return whether NVIDIA's Multi-Process Service is there for this user's processes.

    Its daemon writes its number to a file (docs.nvidia.com/deploy/mps).
    """
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    try:
        daemon = int((folder / "nvidia-cuda-mps-control.pid").read_text())
    except (OSError, ValueError):
        return False
    try:
        os.kill(daemon, 0)
    except PermissionError:
        return True  # root's, which serves others too
    except (OSError, OverflowError):
        return False
    return True


def _extractors() -> Iterator[Finding]:
    for name, extractor in EXTRACTORS.items():
        ok, text = extractor.examined()
        yield Finding(name, ok, extractor.packaged, text)


def _writable(folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Finding("data cache", True, True, f"{folder}")
    except OSError as error:
        text = f"{folder}: {error.strerror}; set SAGAN_BENCH_CACHE to a folder you may write to"
        return Finding("data cache", False, True, text)


def _disk(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    here = shutil.disk_usage(os.curdir).free / 2**30
    text = f"{free:.1f} GiB free for data, {here:.1f} GiB for runs"
    return Finding("disk", min(free, here) >= NEEDED_DISK_GIB, True, text)
