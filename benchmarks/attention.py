"""Time the exact paths of attention against each other, and find the memory that each takes.

    python benchmarks/attention.py --side 64 --batch 8

Forward and backward of the block's core, (query, key, value) to o, at the widths of the kinds of
attention.  Paths take turns within one process, so that a machine whose speed drifts slows all of
them: read the medians of the ratios to ``chunked`` in the same turn.  Where others use the cores
too, take one thread: two wait for each other at the end of every operation, the more often the
smaller the operations are.  Memory is that of a process of its own for each path, above what it
held before its first step.  Prints JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor

from sagan_bench.core import cpu, system
from sagan_bench.models.attention import _paths as attention

CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Core(NamedTuple):
    """The shapes of one block: B images of N positions that look at M, widths D and V."""

    images: int
    positions: int
    keys: int
    width: int
    values: int

    @classmethod
    def of(cls, kind: str, channels: int, side: int, batch: int) -> "Core":
        """Return the shapes of a block of ``kind`` on ``channels`` maps of ``side``."""
        values = {"icml": channels // 8, "pooled": channels // 2}.get(kind, channels)
        keys = side * side // (4 if kind == "pooled" else 1)
        return cls(batch, side * side, keys, channels // 8, values)


PATHS: dict[str, Callable[..., Tensor]] = {
    "plain": attention.plain,
    "chunked": attention.chunked,
    "fused": attention.fused,
    "recomputed": attention.recomputed,
}


def inputs(core: Core, dtype: torch.dtype) -> list[Tensor]:
    """Return queries, keys and values as the block has them: channels-last features, as rows."""
    torch.manual_seed(0)
    query = torch.randn(core.images, core.positions, core.width) / core.width**0.5
    key = torch.randn(core.images, core.keys, core.width)
    value = torch.randn(core.images, core.keys, core.values)
    return [rows.to(dtype).requires_grad_() for rows in (query, key, value)]


def step(compute: Callable[..., Tensor], rows: list[Tensor], direction: Tensor) -> float:
    """Return the seconds of a forward and a backward pass."""
    began = time.perf_counter()
    torch.autograd.grad(compute(*rows), rows, direction)
    return time.perf_counter() - began


def timed(core: Core, dtype: torch.dtype, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each path, turn by turn, the first turn left out."""
    rows = inputs(core, dtype)
    direction = torch.randn(core.images, core.positions, core.values).to(dtype)
    times: dict[str, list[float]] = {name: [] for name in PATHS}
    for _ in range(repeats + 1):
        for name, compute in PATHS.items():
            times[name].append(step(compute, rows, direction))
    return {name: taken[1:] for name, taken in times.items()}


def taken_mib(name: str, core: Core, precision: str) -> float:
    """Return the memory that two steps of a path take, in a process of its own, in MiB."""
    asked = json.dumps([name, core, precision])
    command = [sys.executable, __file__, "--only", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _print_taken(asked: str) -> None:
    name, shapes, precision = json.loads(asked)
    core, dtype = Core(*shapes), DTYPES[precision]
    small = inputs(core._replace(images=1, positions=16, keys=16), dtype)
    step(PATHS[name], small, torch.ones(1, 16, core.values, dtype=dtype))
    rows, direction = inputs(core, dtype), torch.ones(core.images, core.positions, core.values)
    direction = direction.to(dtype)
    before = system.peak_memory_gib(CPU)
    for _ in range(2):
        step(PATHS[name], rows, direction)
    print(1024 * (system.peak_memory_gib(CPU) - before))


def main(
    side: Annotated[int, typer.Option(help="Of the feature map, in pixels")] = 64,
    batch: int = 8,
    channels: Annotated[str, typer.Option(help="C, e.g. 64,256")] = "64,256",
    kinds: Annotated[str, typer.Option(help="full, icml, pooled")] = "full",
    precisions: Annotated[str, typer.Option(help="fp32, bf16")] = "fp32,bf16",
    repeats: int = 7,
    memory: bool = True,
    threads: Annotated[int, typer.Option(help="0 is one for each core")] = 0,
    only: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print each path's median time, its ratio to ``chunked``, and its memory."""
    used = threads or cpu.cores()
    torch.set_num_threads(used)
    if only:
        return _print_taken(only)
    for kind in kinds.split(","):
        for width in map(int, channels.split(",")):
            core = Core.of(kind, width, side, batch)
            for precision in precisions.split(","):
                line = {"kind": kind, "C": width, "side": side, "batch": batch, "threads": used}
                found = _row(core, precision, repeats, memory)
                print(json.dumps({**line, "precision": precision, **found}), flush=True)


def _row(core: Core, precision: str, repeats: int, memory: bool) -> dict[str, Any]:
    times = timed(core, DTYPES[precision], repeats)
    ratios = {
        name: [own / chunked for own, chunked in zip(taken, times["chunked"], strict=True)]
        for name, taken in times.items()
    }
    row: dict[str, Any] = {
        "ms": {name: round(1000 * statistics.median(taken), 1) for name, taken in times.items()},
        "over_chunked": {name: round(statistics.median(r), 2) for name, r in ratios.items()},
    }
    if memory:
        row["mib"] = {name: round(taken_mib(name, core, precision)) for name in PATHS}
    return row


if __name__ == "__main__":
    typer.run(main)
