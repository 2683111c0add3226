"""One run on many processes: which one this is, and what they exchange.

``torchrun`` starts them.  Each has an equal part of every batch; rank 0 is the main one: it alone
writes.  Every collective is called by all of them, at the same moment of the run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from sagan_bench.core.errors import UserError

PATIENCE = timedelta(hours=24)
"""The others wait so long for one that is scoring; gloo sees a broken connection at once."""

LOST_ON_CPUS = timedelta(minutes=30)
"""CPUs wait so long for each other within a step, and every process for the first connection."""

LOST = timedelta(seconds=50)
"""GPUs wait so long for each other within a step, where every process is at work.  NCCL may see
nothing of a peer that is gone; at this time its watchdog ends the process, 60 s later (four times
TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC)."""

PEER_LOST = (
    # gloo
    "Connection reset by peer",
    "Connection closed by peer",
    "Application timeout caused pair closure",
    "Timed out waiting",
    "Broken pipe",
    # NCCL
    "ncclRemoteError",
    "remote process exited",
    "Connection closed by remote peer",
    "Watchdog caught collective operation timeout",
    "NCCL timeout in",
)
"""What errors say when another process is gone."""


class PeerLost(UserError):
    """Another process of the run is gone, and the run with it."""


@dataclass(frozen=True)
class DistributedContext:
    """This process's share of a run: all of it, unless there are others."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    cpu_group: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """The group that what is on the CPU goes through, patiently; None is the default one."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process is rank 0, which writes."""
        return self.rank == 0

    def part(self, whole: Tensor, micro: int | None = None) -> Tensor:
        """Return this process's rows of a global batch (B, ...), (B / world_size, ...).

        They are an equal part of each micro-batch, so that BatchNorm sees the same images together
        whatever the number of processes.
        """
        if self.world_size == 1:
            return whole
        rows = (micro or len(whole)) // self.world_size
        return whole.unflatten(0, (-1, self.world_size, rows))[:, self.rank].flatten(0, 1)

    def span(self, count: int) -> tuple[int, int]:
        """Return start and stop of this process's share of ``count`` images to sample."""
        return count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes, on each of them."""
        if self.world_size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world_size

    def all_reduce_min(self, value: int | None) -> int | None:
        """Return the least of what the processes say; None if none says anything."""
        if self.world_size == 1:
            return value
        reduced = torch.tensor(torch.iinfo(torch.int64).max if value is None else value)
        dist.all_reduce(reduced, dist.ReduceOp.MIN, self.cpu_group)
        return None if reduced == torch.iinfo(torch.int64).max else int(reduced)

    def any_rank(self, reason: str | None) -> str | None:
        """Return this process's reason to stop, or, if only others have one, that they do."""
        is_any = self.all_reduce_min(None if reason is None else 0) is not None
        return (reason or "terminated") if is_any else None

    def broadcast(self, value: int) -> int:
        """Return the main process's value."""
        if self.world_size == 1:
            return value
        sent = torch.tensor(value)
        dist.broadcast(sent, 0, self.cpu_group)
        return int(sent)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return all ``count`` rows in order, on the main process; the others get their own back.

        ``rows`` are those of `span`, on the CPU.
        """
        if self.world_size == 1:
            return rows
        most, size = -(-count // self.world_size), self.world_size
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        spans = [DistributedContext(rank, size).span(count) for rank in range(size)]
        parts = [torch.empty_like(padded) for _ in spans] if self.is_main_process else None
        dist.gather(padded, parts, 0, self.cpu_group)
        if parts is None:
            return rows
        return torch.cat([p[: stop - start] for p, (start, stop) in zip(parts, spans, strict=True)])

    def barrier(self) -> None:
        """Return when every process has come here."""
        self.all_reduce_min(0)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process do what is within, and the others when it has."""
        if not self.is_main_process:
            self.barrier()
        yield
        if self.is_main_process:
            self.barrier()


SINGLE_PROCESS = DistributedContext()


def launched() -> DistributedContext:
    """Return which of the processes that ``torchrun`` started this is, not connected to them."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        return SINGLE_PROCESS
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world, local_rank, local_world = (int(os.environ[name]) for name in names)
    return DistributedContext(rank, world, local_rank, local_world)


@contextmanager
def joined(device: str) -> Iterator[DistributedContext]:
    """Join the processes that ``torchrun`` started, if it did, and leave them at the end.

    Args:
        device: as the configuration has it; nccl connects GPUs, gloo what is on CPUs.

    Raises:
        UserError: more processes than GPUs, or one GPU for all.
    """
    context = launched()
    if context.world_size == 1:
        yield SINGLE_PROCESS
        return
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        _refuse_sharing(context, device)
        torch.cuda.set_device(context.local_rank)
    try:
        cpu_group = _connected("nccl", LOST) if on_gpus else _connected("gloo", LOST_ON_CPUS)
    except dist.DistError as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"the processes of this run cannot be connected: {first}") from error
    try:
        yield replace(context, cpu_group=cpu_group)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLost("another process of this run is gone; the same command goes on") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _connected(backend: Literal["nccl", "gloo"], lost: timedelta) -> dist.ProcessGroup:
    """Connect the processes, and return the group for what is on the CPU.

    What a step exchanges goes through the default group, which gives up after ``lost``.
    """
    dist.init_process_group(backend, timeout=lost)
    cpu_group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(cpu_group, dist.ProcessGroup)  # not the number that outsiders get
    return cpu_group


def _refuse_sharing(context: DistributedContext, device: str) -> None:
    if device not in ("auto", "cuda"):
        raise UserError(f"--device {device}: every process needs a GPU of its own; leave it out")
    if context.local_world_size > torch.cuda.device_count():
        raise UserError(
            f"{context.local_world_size} processes and {torch.cuda.device_count()} GPUs; lower "
            "--nproc-per-node, or add --device cpu"
        )


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error is that of a broken connection to another process.

    An error of NCCL or gloo that is not (memory, wrong use, a fault of the device) is its own.
    """
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in PEER_LOST)
