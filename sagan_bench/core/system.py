"""The device that a process works on: its start, its memory, and what it is called."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from sagan_bench.core import cpu
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import device_called

NO_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUDA ran out of memory",  # cuDNN's attention
    "Cuda failure 2 'out of memory'",  # NCCL
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",  # up to cuDNN 8; then INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "can't allocate memory",  # the CPU's allocator
    "std::bad_alloc",
)
"""What errors without a class of their own say.  CUBLAS_STATUS_NOT_INITIALIZED is not among them:
it follows other faults of a device too."""
CUDA_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""


def device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` is the first CUDA device, else the CPU.

    Raises:
        UserError: CUDA was asked for and is not there, or has fewer devices; or no such device.
    """
    try:
        device_called(name)
    except ValueError as error:
        raise UserError(f"--device {name}: {error}") from error
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    chosen = torch.device("cuda" if name == "auto" else name)
    if (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"--device {name}: there are {count} CUDA devices, counted from 0")
    return chosen


def open_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``, started, as the one that this process works on.

    Told an index, torch starts CUDA only when something is allocated there, and until then counting
    its memory raises; and what names no device, pinned memory say, would take a piece of GPU 0.

    Raises:
        UserError: as `device`; or it has no memory left for its own state.
    """
    chosen = device(name)
    if chosen.type == "cuda":
        with memory_for("starting it", chosen):
            torch.cuda.init()
            torch.cuda.set_device(chosen.index or 0)
    return chosen


def sent(tensor: Tensor, chosen: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device without waiting for it: through pinned memory."""
    pinned = tensor.pin_memory() if chosen.type == "cuda" else tensor
    return pinned.to(chosen, non_blocking=True)


def device_name(chosen: torch.device) -> str | None:
    """Return the product name of a device, null if the system does not tell."""
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    return cpu.name()


def multiplies_bf16(chosen: torch.device) -> bool:
    """Return whether the device multiplies bf16 in hardware; without that, bf16 is slower."""
    if chosen.type == "cuda":
        return torch.cuda.get_device_capability(chosen) >= (8, 0)
    return bool({"amx_bf16", "avx512_bf16"} & cpu.flags())


def peak_memory_gib(chosen: torch.device) -> float:
    """Return the peak of memory held so far: the device's, or on the CPU this process's."""
    if chosen.type == "cuda":
        return torch.cuda.max_memory_allocated(chosen) / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin at the peak of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def forget_peak_memory(chosen: torch.device) -> None:
    """Begin the peak anew, so that of two runs in one process each has its own (Linux, CUDA)."""
    if chosen.type == "cuda":
        torch.cuda.reset_peak_memory_stats(chosen)
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the process
        Path("/proc/self/clear_refs").write_text("5")


class OutOfMemory(UserError):
    """A device had no memory left for something other than a step of training."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: a device's, or the host's.

    torch has a class for what its own allocator is refused; what CUDA's libraries, NCCL and the
    CPU's allocator are refused arrives as another error that says so.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY:  # torch.AcceleratorError's
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


@contextmanager
def memory_for(doing: str, chosen: torch.device) -> Iterator[None]:
    """Say clearly that memory ran out while ``doing``.

    Raises:
        OutOfMemory: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        elsewhere = "" if chosen.type == "cpu" else ", or use --device cpu"
        raise OutOfMemory(
            f"out of memory on {chosen} while {doing}; let fewer runs share it (--jobs), or free "
            f"it{elsewhere}"
        ) from error
