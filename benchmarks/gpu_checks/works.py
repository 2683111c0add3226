"""Does it work on a card: a study, waits, attention, the end of memory, resuming."""

import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from shared import (
    BF16,
    CAPTURED,
    DEVICE,
    FP32,
    ROOT,
    SMALL,
    Figures,
    Running,
    Skipped,
    command_line,
    compare_losses,
    on_noise,
    on_twins,
    record_of,
    require,
    rows_of,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sagan_bench.core import precision
from sagan_bench.data import shapes
from sagan_bench.models.attention._paths import attend
from sagan_bench.training import timing
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe
from sagan_bench.training.timing import try_step


def identity(found: Figures) -> None:
    """The card and what drives it."""
    card = torch.cuda.get_device_properties(DEVICE)
    found |= {
        "cards": torch.cuda.device_count(),
        "name": card.name,
        "capability": [card.major, card.minor],
        "multiprocessors": card.multi_processor_count,
        "memory_gib": round(card.total_memory / 2**30, 2),
        "cudnn": torch.backends.cudnn.version(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }
    ask = ["nvidia-smi", "--query-gpu=driver_version,compute_mode", "--format=csv,noheader"]
    if shutil.which(ask[0]):
        told = subprocess.run(ask, capture_output=True, text=True)
        found["driver, compute mode"] = told.stdout.strip()
    require((card.major, card.minor) >= (8, 0), "the compute capability is below 8.0")


def study_in_workers(found: Figures) -> None:
    """A tiny study, two cells at a time in worker processes."""
    done = subprocess.run(command_line("ablate", "smoke", "--jobs", 2, "--runs", "runs"))
    records = [record_of(path.parent) for path in Path("runs").rglob("record.json")]
    found["exit"] = done.returncode
    found["devices"] = sorted({record["environment"]["device"] for record in records})
    found["cells"] = {record["run"]: record["status"] for record in records}
    failed = {record["reason"] for record in records if record["status"] != "finished"}
    require(not failed, f"unfinished cells: {failed}")
    require(len(records) == 4 and not done.returncode, "not all 4 cells were run")
    on_cards = all(re.fullmatch(r"cuda:\d+", device) for device in found["devices"])
    require(on_cards, f"cells ran on {found['devices']}")


def gpu_tests(found: Figures) -> None:
    """The tests that need a card."""
    if missing := [name for name in ("pytest", "xdist", "hypothesis") if not find_spec(name)]:
        raise Skipped(f"not installed: {', '.join(missing)}")
    options = ["-m", "gpu", "-n", "0", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout)
    found["summary"] = done.stdout.strip().rpartition("\n")[2]
    require(done.returncode == 0, f"pytest left with {done.returncode}: {found['summary']}")


WATCHED = {
    "quick": ("quick", BF16),
    "celeba64": ("celeba64", BF16),
    "cifar10": ("cifar10", BF16, f"model.classes={len(shapes.CLASSES)}"),
    "captured": ("quick", BF16, CAPTURED),
}
"""Without classes; at 64 px; with classes, mirrored images and five updates of D; replayed."""


def no_hidden_wait(found: Figures) -> None:
    """Steps between two rows of the log."""
    require(bool(waits(lambda: torch.ones(1, device=DEVICE).item())), "waits are not seen")
    watched = {name: on_twins(*chosen) for name, chosen in WATCHED.items()}
    for name, running in watched.items():
        running.steps(11)  # past the first row, and all that is made once is made
        found[name] = waits(running.step)
    require(not any(found.values()), f"waits for the card in a step: {found}")
    for running in watched.values():
        with telling_waits("error"):  # the same again, by what raises
            running.step()


def waits(step: Callable[[], object]) -> dict[str, int]:
    """Return where a step waits for the card, and how often."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with telling_waits("warn"):
            step()
    seen = [one for one in caught if "called a synchronizing" in str(one.message)]
    return dict(Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen))


@contextmanager
def telling_waits(mode: str) -> Iterator[None]:
    """Warn of, or refuse, each operation that waits for the card."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


SHAPES = (
    (64, 64, 8, 64),  # quick; D of celeba64 has four times the channels
    (64, 64, 32, 256),
    (256, 256, 16, 128),  # celeba64
    (1024, 1024, 8, 64),
    (16, 16, 64, 512),
    (256, 64, 32, 128),  # cifar10, pooled
    (1024, 256, 32, 128),  # imagenet128-official, pooled
    (1024, 1024, 32, 32),  # imagenet128-paper
)
"""Positions that look, that are looked at, channels of queries and keys, and of values."""
LOW = 12.0
"""In the first channel of queries, and its opposite in that of keys: scores near -144."""
MOST_OFF = 0.05
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
UNUSED = "cuDNN"


def attention_backends(found: Figures) -> None:
    """Gradients of attention in bf16, against those in float64 of the same numbers."""
    precision.use("bf16")
    bad = []
    for positions, keys, width, values in SHAPES:
        for low in (0.0, LOW) if keys == 64 else (0.0,):
            name = f"{positions}x{keys}, {width}, {values}" + (", low scores" if low else "")
            found[name] = _errors(positions, keys, width, values, low)
            bad += [
                f"{name}: {backend} {error}"
                for backend, error in found[name].items()
                if backend != UNUSED and isinstance(error, float) and not error <= MOST_OFF
            ]
            found[name] = {key: str(told) for key, told in found[name].items()}  # nan is no JSON
    require(not bad, f"wrong gradients: {bad}")


def _errors(positions: int, keys: int, width: int, values: int, low: float) -> Figures:
    """Return each way's largest relative error of a gradient, or that it refuses the shape."""
    torch.manual_seed(0)
    sides = ((positions, width), (keys, width), (keys, values), (positions, values))
    q, k, v, into = (torch.randn(8, *side, device=DEVICE) for side in sides)
    q, k = q * width**-0.25, k * width**-0.25
    if low:
        q[..., 0], k[..., 0] = low, -low
    rounded = [each.bfloat16() for each in (q, k, v, into)]
    exact = _gradients(_by_hand, *(each.double() for each in rounded))
    ways: dict[str, Callable[..., Tensor]] = {"project": attend}
    ways |= {name: _by_backend(backend) for name, backend in BACKENDS.items()}
    errors: Figures = {}
    for name, way in ways.items():
        try:
            got = _gradients(way, *rounded)
        except RuntimeError as error:
            require(name != "project", f"the project's call: {error}")
            errors[name] = "refused"
            continue
        off = [float((g.double() - e).norm() / e.norm()) for g, e in zip(got, exact, strict=True)]
        errors[name] = float(f"{np.max(off):.2g}")  # NaN if one is
    return errors


def _gradients(way: Callable[..., Tensor], *rows: Tensor) -> Sequence[Tensor]:
    *inputs, into = rows
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    return torch.autograd.grad(way(*leaves), leaves, into)


def _by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def _by_backend(backend: SDPBackend) -> Callable[..., Tensor]:
    def way(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        padding = (0, value.shape[-1] - query.shape[-1])
        rows = (F.pad(query, padding), F.pad(key, padding), value)
        q, k, v = (each.unsqueeze(1) for each in rows)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)

    return way


MEMORY_GIB = 4
"""What the process may have, so that a moderate batch does not fit on any card."""


def out_of_memory(found: Figures) -> None:
    """Both updates run out of memory; the advice is followed."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, MEMORY_GIB * 2**30 / total), DEVICE)
    large = on_noise("celeba64", FP32, "training.batch_size=2048")
    found["D"] = _advised(large, "update_d", large.step)
    del large

    small = on_noise("celeba64", FP32)
    size, z_dim = small.config.training.batch_size, small.config.model.z_dim
    noise, recipe = Noise(torch.randn(size, z_dim, device=DEVICE)), Recipe(*small[:2])
    small.steps(1)
    hog = _all_memory()
    found["G"] = _advised(small, "update_g", lambda: recipe.update_g(noise), hog)


def _advised(
    running: Running, update: str, step: Callable[[], object], hog: list[Tensor] | None = None
) -> str:
    """Run out of memory in an update, ask for advice, take a step by it, and return it."""
    where = _where_it_ran_out(step)
    (hog or []).clear()
    require(where == update, f"memory ran out in {where}, not in {update}")
    advice = str(timing.out_of_memory(running.config, running.state))
    print(advice)
    told = re.search(r"--micro-batch (\d+)", advice)
    require(told is not None, f"no micro-batch in: {advice}")
    assert told
    training = running.config.training.model_copy(update={"micro_batch": int(told[1])})
    config = running.config.model_copy(update={"training": training})
    try_step(config, TrainState(config, DEVICE))
    torch.cuda.synchronize()
    return advice


def _where_it_ran_out(step: Callable[[], object]) -> str | None:
    """Return the name of the update in which memory ran out; nothing of it is held any more."""
    try:
        step()
    except torch.OutOfMemoryError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return next((name for name in names if name in ("update_d", "update_g")), names[-1])
    return None


def _all_memory() -> list[Tensor]:
    """Return all the memory that is left, in blocks down to 2 MiB."""
    torch.cuda.empty_cache()
    blocks, size = [], 2**28
    while size >= 2**21:
        try:
            blocks.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
        except torch.OutOfMemoryError:
            size //= 2
    return blocks


KILLED_AT, RESUMED_TO = 200, 300


def resume(found: Figures) -> None:
    """A run that is killed after a checkpoint, and goes on here and on the CPU."""
    here, there = Path("run"), Path("run-cpu")
    options = [*SMALL, "--set", f"run.checkpoint_every={KILLED_AT}"]
    begin = command_line("train", *options, "--steps", 100_000, "--out", here)
    kept = here / "checkpoints" / f"step-{KILLED_AT:08d}.ckpt"
    with subprocess.Popen(begin) as process:
        while process.poll() is None and not kept.exists():
            time.sleep(0.05)
        process.kill()
    require(kept.exists(), f"no {kept}")
    shutil.copytree(here, there)
    for run, device in ((here, "auto"), (there, "cpu")):
        again = command_line("train", *options, "--steps", RESUMED_TO, "--out", run)
        done = subprocess.run([*again, "--device", device])
        require(done.returncode == 0, f"going on with --device {device}: exit {done.returncode}")
        record = record_of(run)
        found[device] = {"status": record["status"], "attempts": record["attempts"]}
        logged = [row["step"] for row in rows_of(run)]
        require(logged == list(range(1, RESUMED_TO + 1)), f"--device {device} logged {logged}")
        require(len(record["attempts"]) == 2, f"attempts: {record['attempts']}")
    compare_losses(found, rows_of(here), rows_of(there), slice(KILLED_AT, KILLED_AT + 1), 1e-3)
