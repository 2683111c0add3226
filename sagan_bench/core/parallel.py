"""One run on many processes: which one this is, and what they tell each other.

``torchrun`` starts them.  Each has an equal part of every batch; the first (rank 0) leads: it alone
writes.  Whatever is said here is said by all of them, at the same moment of the run.
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
class Shard:
    """This process's share of a run: all of it, unless there are others."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    talk: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """The group that what is on the CPU goes through, patiently; None is the default one."""

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def part(self, whole: Tensor, micro: int | None = None) -> Tensor:
        """Return this process's rows of a global batch (B, ...), (B / world, ...).

        They are an equal part of each micro-batch, so that BatchNorm sees the same images together
        whatever the number of processes.
        """
        if self.world == 1:
            return whole
        rows = (micro or len(whole)) // self.world
        return whole.unflatten(0, (-1, self.world, rows))[:, self.rank].flatten(0, 1)

    def span(self, count: int) -> tuple[int, int]:
        """Return start and stop of this process's share of ``count`` images to sample."""
        return count * self.rank // self.world, count * (self.rank + 1) // self.world

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes, on each of them."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world

    def least(self, value: int | None) -> int | None:
        """Return the least of what the processes say; None if none says anything."""
        if self.world == 1:
            return value
        said = torch.tensor(torch.iinfo(torch.int64).max if value is None else value)
        dist.all_reduce(said, dist.ReduceOp.MIN, self.talk)
        return None if said == torch.iinfo(torch.int64).max else int(said)

    def agreed(self, reason: str | None) -> str | None:
        """Return this process's reason to stop, or, if only others have one, that they do."""
        asked = self.least(None if reason is None else 0) is not None
        return (reason or "terminated") if asked else None

    def told(self, value: int) -> int:
        """Return the leader's value."""
        if self.world == 1:
            return value
        said = torch.tensor(value)
        dist.broadcast(said, 0, self.talk)
        return int(said)

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """Return all ``count`` rows in order, on the leader; the others get their own back.

        ``rows`` are those of `span`, on the CPU.
        """
        if self.world == 1:
            return rows
        most = -(-count // self.world)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        spans = [Shard(rank, self.world).span(count) for rank in range(self.world)]
        parts = [torch.empty_like(padded) for _ in spans] if self.leads else None
        dist.gather(padded, parts, 0, self.talk)
        if parts is None:
            return rows
        return torch.cat([p[: stop - start] for p, (start, stop) in zip(parts, spans, strict=True)])

    def wait(self) -> None:
        """Return when every process has come here."""
        self.least(0)


ALONE = Shard()


@contextmanager
def joined(device: str) -> Iterator[Shard]:
    """Join the processes that ``torchrun`` started, if it did, and leave them at the end.

    Args:
        device: as the configuration has it; nccl connects GPUs, gloo what is on CPUs.

    Raises:
        UserError: more processes than GPUs, or one GPU for all.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world, local_rank, local_world = (int(os.environ[name]) for name in names)
    shard = Shard(rank, world, local_rank, local_world)
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        _refuse_sharing(shard, device)
        torch.cuda.set_device(shard.local_rank)
    try:
        talk = _connected("nccl", LOST) if on_gpus else _connected("gloo", LOST_ON_CPUS)
    except dist.DistError as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"the processes of this run cannot be connected: {first}") from error
    try:
        yield replace(shard, talk=talk)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLost("another process of this run is gone; the same command goes on") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _connected(backend: Literal["nccl", "gloo"], lost: timedelta) -> dist.ProcessGroup:
    """Connect the processes, and return the group by which they talk.

    What a step exchanges goes through the default group, which gives up after ``lost``.
    """
    dist.init_process_group(backend, timeout=lost)
    talk = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(talk, dist.ProcessGroup)  # a number where this process is not in the group
    return talk


def _refuse_sharing(shard: Shard, device: str) -> None:
    if device not in ("auto", "cuda"):
        raise UserError(f"--device {device}: every process needs a GPU of its own; leave it out")
    if shard.local_world > torch.cuda.device_count():
        raise UserError(
            f"{shard.local_world} processes and {torch.cuda.device_count()} GPUs; lower "
            "--nproc-per-node, or add --device cpu"
        )


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error is that of a broken connection to another process.

    An error of NCCL or gloo that is not (memory, wrong use, a fault of the device) is its own.
    """
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in PEER_LOST)
