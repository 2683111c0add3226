"""Time one full D + G step against the seed project's, paired in one process.

    python benchmarks/train_step.py --peer PATH_TO_A_CHECKOUT_OF_THE_SEED_PROJECT

The peer is heykeetae/Self-Attention-GAN.  Both sides run the same architecture (64 px, width 64,
attention at 16 and 32 in G, 8 and 4 in D), the same batch and the hinge loss.  Steps alternate, so
that a machine whose speed drifts slows both; quote the ratio of the medians.  Peak memory is of
a process of its own for each side.  On a GPU the peer is also timed with TF32.
"""

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core import precision as arithmetic
from sagan_bench.models.build import flops_per_step
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

Step = Callable[[], None]
Z_DIM = 128


def our_config(precision: str, compiled: bool, batch: int) -> RunConfig:
    """Return the seed project's network and recipe, as our preset has them."""
    sets = [f"training.precision={precision}", f"training.batch_size={batch}"]
    sets.append(f"training.compile={str(compiled).lower()}")
    return resolve(Host(True, "efficientnet-lite0"), preset="celeba64", sets=sets).config


def ours(precision: str, compiled: bool, batch: int, device: torch.device) -> Step:
    """Return one step of this project on fixed images."""
    config = our_config(precision, compiled, batch)
    state = TrainState(config, device)
    recipe = Recipe(config, state)
    real = (torch.rand(batch, 3, 64, 64, device=device) * 2 - 1).contiguous(
        memory_format=torch.channels_last
    )

    def step() -> None:
        arithmetic.use(config.training.precision)  # sides of other products take turns
        recipe.update_d(real, Noise(torch.randn(batch, Z_DIM).to(device)))
        recipe.update_g(Noise(torch.randn(batch, Z_DIM).to(device)))

    return step


def peer(path: Path, tf32: bool, batch: int, device: torch.device) -> Step:
    """Return one step of the seed project as its trainer takes it: hinge loss, two D forwards."""
    optimizer_module = importlib.import_module("torch.optim.optimizer")
    setattr(optimizer_module, "required", object())  # noqa: B010  # gone since torch 1.13
    sys.path.insert(0, str(path))
    import sagan_models  # type: ignore[import-not-found]

    generator = sagan_models.Generator(batch, 64, Z_DIM, 64).to(device)
    discriminator = sagan_models.Discriminator(batch, 64, 64).to(device)
    adams = [
        torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr, betas=(0.0, 0.9))
        for net, lr in ((generator, 1e-4), (discriminator, 4e-4))
    ]
    real = torch.rand(batch, 3, 64, 64, device=device) * 2 - 1

    def descend(loss: torch.Tensor, adam: torch.optim.Adam) -> None:
        for each in adams:
            each.zero_grad()
        loss.backward()
        adam.step()

    def step() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        real_logits = discriminator(real)[0]
        fake_logits = discriminator(generator(torch.randn(batch, Z_DIM).to(device))[0])[0]
        loss = (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()
        descend(loss, adams[1])
        fake_logits = discriminator(generator(torch.randn(batch, Z_DIM).to(device))[0])[0]
        descend(-fake_logits.mean(), adams[0])
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return step


def sides(path: Path, batch: int, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Return what is timed, by name; each makes its step when called."""
    table: dict[str, Callable[[], Step]] = {
        "peer fp32": lambda: peer(path, False, batch, device),
        "ours fp32": lambda: ours("fp32", False, batch, device),
        "ours bf16": lambda: ours("bf16", False, batch, device),
    }
    if device.type == "cuda":
        table["peer tf32"] = lambda: peer(path, True, batch, device)
        table["ours bf16 compile"] = lambda: ours("bf16", True, batch, device)
    return table


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one step, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak_flops(device: torch.device) -> float:
    """Return the measured rate of a large bf16 product on a GPU, in FLOP/s."""
    a, b = torch.randn(2, 8192, 8192, device=device, dtype=torch.bfloat16)
    best = min(seconds(lambda: torch.mm(a, b), device) for _ in range(20))
    return float(2 * 8192**3 / best)


def memory_gib(path: Path, name: str, batch: int, device: str) -> float:
    """Return the peak memory of a process that takes six steps of one side."""
    command = [sys.executable, __file__, "--peer", str(path), "--only", name]
    command += ["--batch", str(batch), "--device", device, "--steps", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["memory_gib"])


def main(
    peer: Annotated[Path, typer.Option(help="Checkout of heykeetae/Self-Attention-GAN")],
    steps: Annotated[int, typer.Option(help="Counted steps of each side")] = 20,
    batch: int = 64,
    device: str = "auto",
    only: Annotated[str | None, typer.Option(help="One side, for its memory")] = None,
) -> None:
    """Print each side's median step, and the ratio of the peer's to it."""
    chosen = system.device(device)
    torch.set_num_threads(cpu.cores())
    table = sides(peer.resolve(), batch, chosen)
    if only:
        step = table[only]()
        for _ in range(steps):
            seconds(step, chosen)
        print(json.dumps({"memory_gib": system.peak_memory_gib(chosen)}))
        return
    running = {name: make() for name, make in table.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    for repeat in range(steps + 3):
        for name, step in running.items():
            taken = seconds(step, chosen)
            if repeat >= 3:
                times[name].append(taken)
    print(json.dumps(_summary(times, peer, batch, device, chosen), indent=2))


def _summary(
    times: dict[str, list[float]], path: Path, batch: int, device: str, chosen: torch.device
) -> dict[str, Any]:
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    flops = flops_per_step(our_config("bf16", False, batch))
    peak = peak_flops(chosen) if chosen.type == "cuda" else None
    rows = {
        name: {
            "median_ms": round(1000 * median, 2),
            "min_ms": round(1000 * min(times[name]), 2),
            "steps_per_sec_over_peer_fp32": round(medians["peer fp32"] / median, 3),
            "share_of_measured_bf16_peak": round(flops / median / peak, 4) if peak else None,
            "memory_gib": round(memory_gib(path, name, batch, device), 3),
        }
        for name, median in medians.items()
    }
    return {
        "device": system.device_name(chosen),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "flops_per_step": flops,
        "sides": rows,
    }


if __name__ == "__main__":
    typer.run(main)
