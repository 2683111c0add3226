"""Time one process with two threads against two processes with one thread each, on the CPU.

    python benchmarks/processes.py --preset celeba64 --steps 3
    python benchmarks/processes.py --preset quick --batch 256

Both train one run of the same batch; the second exchanges gradients and BatchNorm's statistics over
gloo.  They take turns, since a machine's speed drifts; quote the ratio of the medians.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Annotated

import torch
import typer

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import distributed
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import try_step

WARM = 3


def configured(preset: str, batch: int) -> RunConfig:
    """Return the run that is timed."""
    sets = [f"training.batch_size={batch}", "training.precision=fp32"]
    return resolve(Host(False, "efficientnet-lite0"), preset=preset, sets=sets).config


def images_per_sec(config: RunConfig, steps: int, context: distributed.DistributedContext) -> float:
    """Return the real images a second of all processes together, by the median step."""
    state, times = TrainState(config, torch.device("cpu"), context), []
    part = config.training.batch_size // context.world_size
    for step in range(WARM + steps):
        began = time.perf_counter()
        try_step(config, state, step, images=part)
        times.append(time.perf_counter() - began)
    return config.training.batch_size / statistics.median(times[WARM:])


def measured(processes: int, preset: str, batch: int, steps: int) -> float:
    """Return what so many processes reach, on two threads in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "benchmark"}
    world |= {"OMP_NUM_THREADS": str(2 // processes)}
    command = [sys.executable, __file__, "--one", "--preset", preset]
    command += ["--batch", str(batch), "--steps", str(steps)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in map(str, range(processes))
    ]
    told = [process.communicate()[0] for process in started]
    return float(json.loads(told[0]))


def main(
    preset: str = "quick",
    batch: int = 64,
    steps: int = 20,
    rounds: Annotated[int, typer.Option(help="Turns of each")] = 3,
    one: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Print both rates and their ratio."""
    if one:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        with distributed.joined("cpu") as context:
            print(json.dumps(images_per_sec(configured(preset, batch), steps, context)))
        return
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, found in rates.items():
            found.append(measured(processes, preset, batch, steps))
    medians = {processes: statistics.median(found) for processes, found in rates.items()}
    print(json.dumps({"images_per_sec": rates, "two_over_one": medians[2] / medians[1]}, indent=2))


if __name__ == "__main__":
    typer.run(main)
