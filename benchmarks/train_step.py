"""Time one full D + G step: against the seed project's, and against its own convolutions.

    python benchmarks/train_step.py --peer PATH_TO_A_CHECKOUT_OF_THE_SEED_PROJECT
    python benchmarks/train_step.py --preset quick
    python benchmarks/train_step.py --peer PATH --beside 2      # while others keep two cores busy

The peer is heykeetae/Self-Attention-GAN.  Both sides run the same architecture (64 px, width 64,
attention at 16 and 32 in G, 8 and 4 in D), the same batch and the hinge loss.  Steps alternate, so
that a machine whose speed drifts slows both; quote the ratios, which are of neighbouring steps.
The convolutions are those of our step, forward and backward, on the tensors that they had there and
nothing else: what a step of these networks costs at least.  Peak memory is of a process of its own
for each side.  On a GPU the peer is also timed with TF32.  Where bf16 is emulated it is left out,
unless asked for.  Beside other work set GOMP_SPINCOUNT=10000, as the command line does
(docs/cpu.md).
"""

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils._python_dispatch import TorchDispatchMode

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core import precision as arithmetic
from sagan_bench.models.build import flops_per_step
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

Step = Callable[[], None]
OURS, CONVOLUTIONS, PEER = "ours fp32", "ours fp32, its convolutions alone", "peer fp32"
Z_DIM = 128
PEERS_PRESET = "celeba64"
"""Ours with the seed project's network and recipe."""
SPIN = """
import sys, threading, torch
torch.set_num_threads(1)
def multiply():
    a = torch.randn(512, 512)
    while True:
        a @ a
for _ in range(int(sys.argv[1])):
    threading.Thread(target=multiply, daemon=True).start()
sys.stdin.read()
"""
"""A process that keeps cores busy until whoever started it ends."""


def our_config(precision: str, compiled: bool, batch: int, preset: str = PEERS_PRESET) -> RunConfig:
    """Return a preset of ours, of networks without classes."""
    sets = [f"training.precision={precision}", f"training.batch_size={batch}"]
    sets.append(f"training.compile={str(compiled).lower()}")
    return resolve(Host(True, "efficientnet-lite0"), preset=preset, sets=sets).config


def ours(config: RunConfig, device: torch.device) -> Step:
    """Return one step of this project on fixed images."""
    state = TrainState(config, device)
    recipe = Recipe(config, state)
    batch, size, z_dim = config.training.batch_size, config.data.image_size, config.model.z_dim
    real = (torch.rand(batch, 3, size, size, device=device) * 2 - 1).contiguous(
        memory_format=torch.channels_last
    )

    def step() -> None:
        arithmetic.use(config.training.precision)  # sides of other products take turns
        recipe.update_d(real, Noise(torch.randn(batch, z_dim).to(device)))
        recipe.update_g(Noise(torch.randn(batch, z_dim).to(device)))
        state.step += 1

    return step


class Convolutions(TorchDispatchMode):
    """Keeps each convolution, forward and backward, and what it was called with."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Sequence[Any], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func._schema.name in ("aten::convolution", "aten::convolution_backward"):
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def convolutions(config: RunConfig, device: torch.device) -> Step:
    """Return the convolutions of one step of this project, after its first, and nothing else."""
    step = ours(config, device)
    step()
    with Convolutions() as kept:
        step()

    @torch.no_grad()
    def again() -> None:
        arithmetic.use(config.training.precision)
        for func, args, kwargs in kept.calls:
            func(*args, **kwargs)

    return again


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


def sides(
    path: Path | None, preset: str, batch: int, device: torch.device, emulated: bool
) -> dict[str, Callable[[], Step]]:
    """Return what is timed, by name; each makes its step when called."""

    def our(precision: str, compiled: bool = False) -> Callable[[], Step]:
        return lambda: ours(our_config(precision, compiled, batch, preset), device)

    exact = our_config("fp32", False, batch, preset)
    table = {OURS: our("fp32"), CONVOLUTIONS: lambda: convolutions(exact, device)}
    if path is not None:
        table[PEER] = lambda: peer(path, False, batch, device)
    if emulated or system.multiplies_bf16(device):
        table["ours bf16"] = our("bf16")
    else:
        print("bf16 is emulated here, and left out; --emulated times it too", file=sys.stderr)
    if device.type == "cuda":
        table["ours bf16 compile"] = our("bf16", True)
        if path is not None:
            table["peer tf32"] = lambda: peer(path, True, batch, device)
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


@contextmanager
def beside(threads: int) -> Iterator[None]:
    """Have another process keep so many cores busy meanwhile."""
    if not threads:
        yield
        return
    command = [sys.executable, "-c", SPIN, str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        time.sleep(5)  # it imports torch
        try:
            yield
        finally:
            other.kill()


def memory_gib(name: str, given: Sequence[str]) -> float:
    """Return the peak memory of a process that takes two steps of one side."""
    command = [sys.executable, __file__, *given, "--only", name, "--steps", "2", "--emulated"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["memory_gib"])


def timed(
    running: dict[str, Step], steps: int, warm_up: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of each side's steps, which alternate."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for repeat in range(warm_up + steps):
        for name, step in running.items():
            taken = seconds(step, device)
            if repeat >= warm_up:
                times[name].append(taken)
    return times


def main(
    peer: Annotated[Path | None, typer.Option(help="heykeetae/Self-Attention-GAN")] = None,
    preset: Annotated[str, typer.Option(help="Ours; of networks without classes")] = PEERS_PRESET,
    steps: Annotated[int | None, typer.Option(help="Counted; 20 on a GPU, else 3")] = None,
    batch: int = 64,
    device: str = "auto",
    emulated: Annotated[bool, typer.Option("--emulated", help="bf16 everywhere")] = False,
    threads: Annotated[int | None, typer.Option(help="Of the CPU; one a core")] = None,
    busy: Annotated[int, typer.Option("--beside", help="Cores kept busy by others")] = 0,
    only: Annotated[str | None, typer.Option(help="One side, for its memory")] = None,
) -> None:
    """Print each side's median step, and by which factor others take longer."""
    chosen = system.device(device)
    torch.set_num_threads(threads or cpu.cores())
    if peer and preset != PEERS_PRESET:
        raise typer.BadParameter(
            f"the peer has the network of {PEERS_PRESET} only", param_hint="--preset"
        )
    table = sides(peer.resolve() if peer else None, preset, batch, chosen, emulated)
    if only:
        step = table[only]()
        for _ in range(steps or 2):
            seconds(step, chosen)
        print(json.dumps({"memory_gib": system.peak_memory_gib(chosen)}))
        return
    on_gpu = chosen.type == "cuda"
    with beside(busy):
        running = {name: make() for name, make in table.items()}
        times = timed(running, steps or (20 if on_gpu else 3), 3 if on_gpu else 1, chosen)
    given = ["--preset", preset, "--batch", str(batch), "--device", device]
    given += ["--threads", str(torch.get_num_threads())]
    given += ["--peer", str(peer)] if peer else []
    flops = flops_per_step(our_config("fp32", False, batch, preset))
    print(json.dumps(_summary(times, given, flops, chosen) | {"cores_kept_busy": busy}, indent=2))


def _summary(
    times: dict[str, list[float]], given: Sequence[str], flops: int, chosen: torch.device
) -> dict[str, Any]:
    peak = peak_flops(chosen) if chosen.type == "cuda" else None
    rows = {}
    for name, taken in times.items():
        median = statistics.median(taken)
        rows[name] = {
            "median_ms": round(1000 * median, 2),
            "min_ms": round(1000 * min(taken), 2),
            "over_ours_fp32": _ratio(taken, times[OURS]),
            "gflops": round(flops / median / 1e9, 1),
            "share_of_measured_bf16_peak": round(flops / median / peak, 4) if peak else None,
            "memory_gib": None if name == CONVOLUTIONS else round(memory_gib(name, given), 3),
        }
    return {
        "device": system.device_name(chosen),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "flops_per_step": flops,
        "ours_over_its_convolutions": _ratio(times[OURS], times[CONVOLUTIONS]),
        "sides": rows,
    }


def _ratio(taken: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the median and the ends of the ratios of neighbouring steps."""
    ratios = [one / two for one, two in zip(taken, other, strict=True)]
    found = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    typer.run(main)
