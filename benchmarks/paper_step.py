"""Time one full D + G step of the paper's network against BigGAN-PyTorch at its SAGAN setting.

    python benchmarks/paper_step.py --peer PATH_TO_A_CHECKOUT_OF_BIGGAN_PYTORCH --batch 256

The peer is ajbrock/BigGAN-PyTorch with the options of its launch_SAGAN script.  Both sides are at
128 px with 1,000 classes and 64 channels, attention at one side of the map, the same batch and the
hinge loss; ours is `imagenet128-official`.  Each turn of a side is a process of its own, and sides
take turns, since a machine's speed drifts; quote the ratio of the medians.
"""

import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from train_step import peak_flops, seconds

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core import precision as arithmetic
from sagan_bench.models.build import flops_per_step
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

Step = Callable[[], None]
Z_DIM, CLASSES, WIDTH, SIZE = 128, 1000, 64, 128
WARM = 3


def our_config(precision: str, compiled: bool, batch: int, side: int) -> RunConfig:
    """Return the preset of the authors' code, with attention at ``side`` in both networks."""
    sets = [f"training.precision={precision}", f"training.batch_size={batch}"]
    sets.append(f"training.compile={str(compiled).lower()}")
    sets += [f"model.attention.{net}=[{side}]" for net in ("generator", "discriminator")]
    known = Host(True, "efficientnet-lite0")
    return resolve(known, preset="imagenet128-official", sets=sets).config


def ours(precision: str, compiled: bool, batch: int, side: int, device: torch.device) -> Step:
    """Return one step of this project on fixed images."""
    config = our_config(precision, compiled, batch, side)
    arithmetic.use(config.training.precision)
    recipe = Recipe(config, TrainState(config, device))
    real, labels = images(batch, device)
    real = real.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        recipe.update_d(real, Noise(noise(batch, device), drawn(batch, device)), labels)
        recipe.update_g(Noise(noise(batch, device), drawn(batch, device)))

    return step


def images(batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images in [-1, 1] of no meaning, (batch, 3, S, S), and their labels."""
    return torch.rand(batch, 3, SIZE, SIZE, device=device) * 2 - 1, drawn(batch, device)


def noise(batch: int, device: torch.device) -> torch.Tensor:
    """Return z, (batch, 128)."""
    return torch.randn(batch, Z_DIM).to(device)


def drawn(batch: int, device: torch.device) -> torch.Tensor:
    """Return labels, (batch,) int64."""
    return torch.randint(CLASSES, (batch,)).to(device)


def peer(path: Path, products: str, batch: int, side: int, device: torch.device) -> Step:
    """Return one step of the peer as its training function takes it, without its average of G."""
    sys.path.insert(0, str(path))
    big = importlib.import_module("BigGAN")
    common = {
        "resolution": SIZE, "n_classes": CLASSES, "SN_eps": 1e-8, "adam_eps": 1e-8,
    }  # fmt: skip
    relu = torch.nn.ReLU(inplace=False)
    generator = big.Generator(
        G_ch=WIDTH, dim_z=Z_DIM, G_attn=str(side), G_shared=False, G_activation=relu, G_lr=1e-4,
        G_B2=0.999, BN_eps=1e-5, G_init="xavier", **common,
    ).to(device)  # fmt: skip
    discriminator = big.Discriminator(
        D_ch=WIDTH, D_attn=str(side), D_activation=relu, D_lr=4e-4, D_B2=0.999, D_init="xavier",
        **common,
    ).to(device)  # fmt: skip
    both = big.G_D(generator, discriminator)
    real, labels = images(batch, device)
    tf32 = products == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    half = torch.autocast(device.type, torch.bfloat16, enabled=products == "bf16")

    def toggle(learning: torch.nn.Module, other: torch.nn.Module) -> None:
        learning.requires_grad_(True)
        other.requires_grad_(False)

    def step() -> None:
        toggle(discriminator, generator)
        discriminator.optim.zero_grad()
        with half:
            fake_logits, real_logits = both(
                noise(batch, device), drawn(batch, device), real, labels, train_G=False
            )
            loss = (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()
        loss.backward()
        discriminator.optim.step()
        toggle(generator, discriminator)
        generator.optim.zero_grad()
        with half:
            loss = -both(noise(batch, device), drawn(batch, device), train_G=True).mean()
        loss.backward()
        generator.optim.step()

    return step


def sides(path: Path, batch: int, side: int, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Return what is timed, by name; each makes its step when called."""
    table: dict[str, Callable[[], Step]] = {
        "peer fp32": lambda: peer(path, "fp32", batch, side, device),
        "ours fp32": lambda: ours("fp32", False, batch, side, device),
        "ours bf16": lambda: ours("bf16", False, batch, side, device),
    }
    if device.type == "cuda":
        table["peer tf32"] = lambda: peer(path, "tf32", batch, side, device)
        table["peer bf16 autocast"] = lambda: peer(path, "bf16", batch, side, device)
        table["ours bf16 compile"] = lambda: ours("bf16", True, batch, side, device)
    return table


def alone(path: Path, name: str, batch: int, side: int, device: str, steps: int) -> dict[str, Any]:
    """Return the times and the peak memory of a process that takes the steps of one side."""
    command = [sys.executable, __file__, "--peer", str(path), "--only", name, "--side", str(side)]
    command += ["--batch", str(batch), "--device", device, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:200]}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main(
    peer: Annotated[Path, typer.Option(help="Checkout of ajbrock/BigGAN-PyTorch")],
    steps: Annotated[int, typer.Option(help="Counted steps of a turn")] = 5,
    turns: int = 3,
    batch: int = 256,
    side: Annotated[int, typer.Option(help="Of the map with attention, px")] = 32,
    device: str = "auto",
    only: Annotated[str | None, typer.Option(help="One side, in this process")] = None,
) -> None:
    """Print each side's images a second, the ratio to the peer's, memory, and the share of peak."""
    chosen = system.device(device)
    torch.set_num_threads(cpu.cores())
    table = sides(peer.resolve(), batch, side, chosen)
    if only:
        step = table[only]()
        times = [seconds(step, chosen) for _ in range(WARM + steps)][WARM:]
        print(json.dumps({"times": times, "memory_gib": system.peak_memory_gib(chosen)}))
        return
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in table}
    for _ in range(turns):
        for name, found in told.items():
            found.append(alone(peer, name, batch, side, device, steps))
    print(json.dumps(_summary(told, batch, side, chosen), indent=2))


def _summary(
    told: dict[str, list[dict[str, Any]]], batch: int, side: int, chosen: torch.device
) -> dict[str, Any]:
    flops = flops_per_step(our_config("bf16", False, batch, side))
    peak = peak_flops(chosen) if chosen.type == "cuda" else None
    rows: dict[str, Any] = {}
    for name, found in told.items():
        times = [t for one in found for t in one.get("times", ())]
        if not times:
            rows[name] = found[0]
            continue
        median = statistics.median(times)
        rows[name] = {
            "images_per_sec": round(batch / median, 2),
            "share_of_measured_bf16_peak": round(flops / median / peak, 4) if peak else None,
            "memory_gib": round(max(one.get("memory_gib", 0.0) for one in found), 3),
        }
    first = rows["peer fp32"].get("images_per_sec")
    for row in rows.values():
        if first and "images_per_sec" in row:
            row["over_peer_fp32"] = round(row["images_per_sec"] / first, 3)
    return {
        "device": system.device_name(chosen),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": batch,
        "flops_per_step": flops,
        "sides": rows,
    }


if __name__ == "__main__":
    typer.run(main)
