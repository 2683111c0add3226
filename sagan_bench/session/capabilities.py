"""What this machine offers to a configuration: what ``auto`` means, and whether it compiles."""

import os
import shutil
import sys

import torch

from sagan_bench.config.layers import override
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.extractors import best
from sagan_bench.runs.records import Record


def capabilities(config: RunConfig) -> Host:
    """Return what ``auto`` means on the device that a configuration asks for.

    Raises:
        UserError: the device, or the file of Inception's weights, is not there.
    """
    chosen = system.device(config.run.device)
    return Host(
        bf16=system.multiplies_bf16(chosen),
        tf32=chosen.type == "cuda" and torch.cuda.get_device_capability(chosen) >= (8, 0),
        extractor=best(config.run),
    )


def emulated(config: RunConfig) -> str | None:
    """Return what to say of bf16 that was asked for where no hardware multiplies it; else None."""
    chosen = system.device(config.run.device)
    if config.training.precision != "bf16" or system.multiplies_bf16(chosen):
        return None
    return (
        f"training.precision = bf16: {system.device_name(chosen)} does not multiply bf16 and "
        "emulates it: a step takes longer than in fp32, 3.7 times as long where it was measured "
        "(docs/cpu.md); auto is fp32 here"
    )


def refuse_compiling(config: RunConfig) -> None:
    """Refuse to compile networks where torch finds no compiler: it would say so in the first step.

    Raises:
        UserError: there is none.
    """
    if not config.training.compile:
        return
    by_default = "clang++" if sys.platform == "darwin" else "g++"
    wanted = [os.environ.get("CXX", by_default)]
    if system.device(config.run.device).type == "cuda":  # Triton's, which needs one for C
        wanted = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang", "cc"]
    if not any(shutil.which(command.partition(" ")[0]) for command in wanted):  # "ccache g++"
        raise UserError(
            f"training.compile: torch needs a compiler, and {' or '.join(wanted)} is not to be "
            "found; install one (Debian: apt-get install g++), or leave out --compile"
        )


def on_this_rank(config: RunConfig, context: DistributedContext) -> RunConfig:
    """Return the configuration on this process's device.

    Raises:
        UserError: a batch or micro-batch that cannot be shared out equally; networks that would be
            compiled in pieces; or a step that would be captured.
    """
    if context.world_size == 1:
        return config
    training = config.training
    if training.compile:
        raise UserError(
            f"training.compile with {context.world_size} processes: BatchNorm over all of them "
            "cuts the compiled networks at each of its layers (pytorch #161302); leave out "
            "--compile"
        )
    if training.cuda_graph:
        raise UserError(
            f"training.cuda_graph with {context.world_size} processes: what they exchange in a "
            "step is not captured; leave out training.cuda_graph"
        )
    for key in ("batch_size", "micro_batch"):
        if (getattr(training, key) or 0) % context.world_size:
            raise UserError(
                f"training.{key} = {getattr(training, key)} cannot be shared out among "
                f"{context.world_size} processes; choose a multiple of {context.world_size}"
            )
    on_gpus = config.run.device != "cpu" and torch.cuda.is_available()
    device = f"cuda:{context.local_rank}" if on_gpus else "cpu"
    return override(config, {"run.device": ("torchrun", device)})


def threads_for(config: RunConfig, earlier: Record | None, context: DistributedContext) -> int:
    """Return the CPU threads: as asked, else as before the interruption, else one a core.

    Their number changes the last bits of sums, so a run resumed by as many processes keeps it.
    Processes on one machine share its cores.
    """
    last = earlier.attempts[-1] if earlier and earlier.attempts else None
    before = last.threads if last and (last.processes or 1) == context.world_size else None
    return config.run.threads or before or max(1, cpu.cores() // context.local_world_size)
