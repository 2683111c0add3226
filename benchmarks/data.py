"""Time the data: feeding, its share of a step, preparing, and the memory of a large store.

    python benchmarks/data.py feed --peer PATH_TO_A_CHECKOUT_OF_THE_SEED_PROJECT
    python benchmarks/data.py step
    python benchmarks/data.py prepare
    python benchmarks/data.py memory

The pictures are JPEGs of 178 x 218 and about 10 kB, as CelebA's are, written before the clock runs.
Both sides of a comparison alternate in one run; quote the ratio of the medians.  The peer is
heykeetae/Self-Attention-GAN: its own loader, with its two worker processes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.data.building import prepare as prepare_store
from sagan_bench.data.feeding import Batch, Feed
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.pixels import to_network
from sagan_bench.data.store import Split
from sagan_bench.models.build import build
from sagan_bench.training import loop
from sagan_bench.training.draws import Draws
from sagan_bench.training.state import TrainState

CELEBA = (178, 218)
BATCH, SIZE, CROP = 64, 64, 160
PROGRAM = Path(__file__).parents[1] / "cli.py"

app = typer.Typer(no_args_is_help=True)


def write_picture(folder: Path, number: int) -> None:
    """Write one JPEG: smooth shapes under a little noise, so that it compresses as a photo does."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (14, 11, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(CELEBA, Image.Resampling.BICUBIC))
    noisy = smooth + random.normal(0, 6, smooth.shape)
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    image.save(folder / f"{number:06d}.jpg", quality=85)


def write_pictures(root: Path, count: int) -> int:
    """Write ``count`` JPEGs below ``root`` and return their mean size in bytes."""
    folder = root / "CelebA/img_align_celeba"
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(cpu.cores()) as workers:
        list(workers.map(partial(write_picture, folder), range(count), chunksize=200))
    return sum(path.stat().st_size for path in folder.iterdir()) // count


def report(times: dict[str, list[float]], images: int = 1, /, **facts: Any) -> None:
    """Print each side's median and quartiles of seconds, its images a second, and time ratios.

    Args:
        times: side -> seconds of each repeat.
        images: those that one repeat is about.
        facts: printed first.
    """
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    sides = {
        side: {
            "median_sec": taken[0],
            "quartiles_sec": taken[1:],
            "images_per_sec": round(images / medians[side], 1),
        }
        for side, taken in ((side, _rounded(taken)) for side, taken in times.items())
    }
    *others, last = medians
    ratios = {f"{side} / {last}": round(medians[side] / medians[last], 3) for side in others}
    machine = {"torch": torch.__version__, "cpu": cpu.name(), "cores": cpu.cores()}
    print(json.dumps({**facts, "sides": sides, "time_ratios": ratios, **machine}, indent=2))


def _rounded(taken: list[float]) -> list[float]:
    low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75])
    return [float(f"{value:.4g}") for value in (middle, low, high)]


# --- feed ------------------------------------------------------------------------------------


@app.command()
def feed(
    peer: Annotated[Path, typer.Option(help="Checkout of heykeetae/Self-Attention-GAN")],
    pictures: int = 3000,
    rounds: int = 5,
    device: str = "auto",
) -> None:
    """Float batches of 64 at 64 px on the device: the seed project's loader and ours."""
    chosen = system.device(device)
    torch.set_num_threads(cpu.cores())
    sys.path.insert(0, str(peer.resolve()))
    import data_loader  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        size = write_pictures(Path(folder), pictures)
        theirs = data_loader.Data_Loader(True, "celeb", folder, SIZE, BATCH, True).loader()
        spec = DataSpec(f"folder:{folder}/CelebA", SIZE, CROP, test_images=0)
        split = prepare_store(spec, Path(folder) / "cache").train
        times: dict[str, list[float]] = {"peer": [], "ours": []}
        for _ in range(rounds + 1):
            times["peer"].append(_of_peer(theirs, chosen))
            times["ours"].append(_of_ours(split, chosen))
    times = {side: taken[1:] for side, taken in times.items()}  # the first round warms up
    facts: dict[str, Any] = {"benchmark": "feed", "pictures": pictures, "bytes_a_picture": size}
    report(times, **facts, device=system.device_name(chosen))


def _of_peer(loader: Any, device: torch.device) -> float:
    """Return seconds an image over an epoch, without the start of the loader's processes."""
    batches = iter(loader)
    next(batches)
    moved = (images.to(device) for images, _ in batches)
    return _seconds(lambda: deque(moved, maxlen=1), device) / (BATCH * (len(loader) - 1))


def _of_ours(split: Split, device: torch.device, batches: int = 400) -> float:
    """Return seconds an image, over batches as the training loop has them."""
    with Feed(split, 0, BATCH, device) as source:
        to_network(source(0).images)
        work = (to_network(source(index).images) for index in range(1, batches + 1))
        return _seconds(lambda: deque(work, maxlen=1), device) / (BATCH * batches)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


# --- step ------------------------------------------------------------------------------------


@app.command()
def step(steps: int = 60, width: int = 16, images: int = 20_000, device: str = "auto") -> None:
    """A training step of 64 images of 64 px, fed from a store and from a constant tensor."""
    chosen = system.device(device)
    torch.set_num_threads(cpu.cores())
    with tempfile.TemporaryDirectory() as folder:
        split = _random_split(Path(folder), images)
        config = _config(width, 10**6)
        constant = Batch(*(torch.from_numpy(part[:BATCH].copy()).to(chosen)
                           for part in (split.images, split.labels)))  # fmt: skip
        with (
            Feed(split, 0, BATCH, chosen) as source,
            Draws(config, SINGLE_PROCESS, chosen) as draws,
        ):
            feeds: dict[str, Any] = {"store": source, "constant": lambda index: constant}
            runs = {
                name: loop._steps(config, TrainState(config, chosen), feed, draws)
                for name, feed in feeds.items()
            }
            times: dict[str, list[float]] = {name: [] for name in runs}
            for repeat in range(steps + 5):
                for name, run in runs.items():
                    taken = _seconds(partial(next, run), chosen)
                    if repeat >= 5:
                        times[name].append(taken)
    facts: dict[str, Any] = {"benchmark": "step", "width": width, "images": images, "steps": steps}
    report(times, BATCH, **facts, device=system.device_name(chosen))


def _random_split(folder: Path, count: int) -> Split:
    random, path = np.random.default_rng(0), folder / "images.npy"
    np.save(path, random.integers(0, 256, (count, 3, SIZE, SIZE), np.uint8))
    return Split(np.load(path, mmap_mode="r"), np.zeros(count, np.int64))


def _config(width: int, steps: int) -> RunConfig:
    sets = [f"model.width={width}", f"run.steps={steps}", "run.log_every=1000000"]
    here = Host(system.multiplies_bf16(system.device()), "efficientnet-lite0")
    return resolve(here, preset="celeba64", sets=sets).config


# --- prepare ---------------------------------------------------------------------------------


@app.command()
def prepare(pictures: int = 20_000, rounds: int = 3) -> None:
    """The whole command ``data prepare`` over JPEGs: on one core, with one worker, on all cores.

    One worker is not one core: what the first process hashes and writes overlaps its decoding.
    """
    everywhere = os.sched_getaffinity(0)
    sides = {
        "one core": (1, {min(everywhere)}),
        "one worker": (1, everywhere),
        "all cores": (cpu.cores(), everywhere),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        size = write_pictures(Path(folder), pictures)
        for _ in range(rounds):
            for side, (workers, allowed) in sides.items():
                os.sched_setaffinity(0, allowed)  # inherited by the command
                times[side].append(_prepare(Path(folder), workers))
                os.sched_setaffinity(0, everywhere)
    report(times, pictures, benchmark="prepare", pictures=pictures, bytes_a_picture=size)


def _prepare(folder: Path, workers: int) -> float:
    command = [sys.executable, str(PROGRAM), "data", "prepare", f"folder:{folder}/CelebA"]
    command += ["--image-size", str(SIZE), "--set", f"data.crop={CROP}", "--workers", str(workers)]
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        environment = os.environ | {"SAGAN_BENCH_CACHE": cache}
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


# --- memory ----------------------------------------------------------------------------------


@app.command()
def memory(gigabytes: float = 10.0, steps: int = 40, width: int = 16) -> None:
    """Peak anonymous memory of training on a sparse store, and on one of a thousandth its size."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"store": gigabytes, "a thousandth": gigabytes / 1000}
        peaks = {name: _train_on(Path(folder), size, steps, width) for name, size in sizes.items()}
    facts = {"benchmark": "memory", "gigabytes": gigabytes, "steps": steps, "width": width}
    print(json.dumps({**facts, "sides": peaks, "cpu": cpu.name()}, indent=2))


def _train_on(folder: Path, gigabytes: float, steps: int, width: int) -> dict[str, float]:
    command = [sys.executable, __file__, "train-on", str(folder), str(gigabytes)]
    done = subprocess.run(
        [*command, str(steps), str(width)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


@app.command(hidden=True)
def train_on(folder: Path, gigabytes: float, steps: int, width: int) -> None:
    """Train on a sparse memory map, and print what memory that took."""
    count = max(BATCH, int(gigabytes * 1e9 / (3 * SIZE**2)))
    images: Any = np.memmap(folder / f"{count}", np.uint8, "w+", shape=(count, 3, SIZE, SIZE))
    config, device = _config(width, steps), torch.device("cpu")
    torch.set_num_threads(cpu.cores())
    networks = build(config)
    weights = sum(p.nbytes for net in networks for p in net.parameters())
    split = Split(images, np.zeros(count, np.int64))
    with Feed(split, 0, BATCH, device) as source, Draws(config, SINGLE_PROCESS, device) as draws:
        peak = max(_anonymous_gb(loop._steps(config, TrainState(config, device), source, draws)))
    status = _status()
    result = {"images": count, "peak_anonymous_gb": peak, "weights_gb": weights / 1e9}
    print(json.dumps({**result, "resident_of_files_gb": status["RssFile"]}))


def _anonymous_gb(run: Iterator[object]) -> Iterator[float]:
    for _ in run:
        yield _status()["RssAnon"]


def _status() -> dict[str, float]:
    """Return this process's resident memory by kind, in GB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith("Rss"))
    return {name.rstrip(":"): int(kib) * 1024 / 1e9 for name, kib, _ in fields}


if __name__ == "__main__":
    app()
