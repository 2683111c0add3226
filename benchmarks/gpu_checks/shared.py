"""What the checks of a card share: networks under way, times, and how a check ends."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import precision
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.training.loop import Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import try_step

ROOT = Path(__file__).resolve().parents[2]
DEVICE = torch.device("cuda:0")
CAPTURED = "training.cuda_graph=true"
BF16 = "training.precision=bf16"
FP32 = "training.precision=fp32"
Figures = dict[str, Any]


class Skipped(Exception):
    """The check cannot be made here; the text says why."""


class Failed(Exception):
    """What was found is not what was expected."""


def require(met: bool, otherwise: str) -> None:
    """Raise `Failed` unless a condition is met."""
    if not met:
        raise Failed(otherwise)


class Running(NamedTuple):
    """A run on the card, and its next step."""

    config: RunConfig
    state: TrainState
    step: Callable[[], None]

    def steps(self, count: int) -> None:
        """Take so many steps and wait for the card."""
        for _ in range(count):
            self.step()
        torch.cuda.synchronize()


def configured(preset: str, *sets: str) -> RunConfig:
    """Return a preset's configuration with attention."""
    host = Host(True, "efficientnet-lite0", True)
    return resolve(host, preset=preset, variant="sagan", sets=list(sets)).config


def shown_twins(preset: str, *sets: str) -> tuple[RunConfig, Store]:
    """Return a preset's configuration with twins of its size for images, and these."""
    config = configured(preset, "data.source=twins", "data.train_images=5000", *sets)
    return config, prepare(DataSpec.of(config.data))


def on_twins(preset: str, *sets: str) -> Running:
    """Return a preset's network in the real training loop, on twins of its size."""
    config, store = shown_twins(preset, "run.steps=1000000", *sets)
    precision.use(config.training.precision)
    state = TrainState(config, DEVICE)
    events = train(config, state, store)

    def step() -> None:
        event = next(events)
        require(isinstance(event, Step), f"training ended with {event}")

    return Running(config, state, step)


def on_noise(preset: str, *sets: str) -> Running:
    """Return a preset's network on noise in place of images."""
    config = configured(preset, *sets)
    precision.use(config.training.precision)
    state = TrainState(config, DEVICE)
    return Running(config, state, lambda: try_step(config, state))


def ms_a_step(running: Running, *, warm: int = 10, steps: int = 20) -> float:
    """Return the milliseconds of a step, the median of five times so many."""
    running.steps(warm)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        running.steps(steps)
        times.append((time.perf_counter() - began) / steps)
    return round(1000 * statistics.median(times), 3)


def command_line(*words: str | Path | int) -> list[str]:
    """Return this project's command line with these words."""
    return [sys.executable, str(ROOT / "cli.py"), *map(str, words)]


def rows_of(run: Path) -> list[dict[str, float]]:
    """Return what a run has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def record_of(run: Path) -> dict[str, Any]:
    """Return a run's record."""
    found: dict[str, Any] = json.loads((run / "record.json").read_text())
    return found


def need_cards(count: int) -> None:
    """Skip a check that needs more cards than there are."""
    there = torch.cuda.device_count()
    if there < count:
        raise Skipped(f"needs {count} cards, there is {there}")


SMALL = (
    "--preset", "quick", "--precision", "fp32", "--set", "model.width=16",
    "--set", "evaluation.n_real=256", "--set", "evaluation.n_fake=256",
    "--set", "evaluation.n_floor=256", "--set", "run.log_every=1",
)  # fmt: skip
"""Options of a run that is soon scored and logs every step."""


def compare_losses(
    found: Figures,
    ours: Sequence[Mapping[str, float]],
    others: Sequence[Mapping[str, float]],
    rows: slice,
    tolerance: float,
) -> None:
    """Compare the losses of two runs in some rows of their logs."""
    pairs = list(zip(ours[rows], others[rows], strict=True))
    off = max(abs(a[loss] - b[loss]) for a, b in pairs for loss in ("loss_d", "loss_g"))
    found["losses differ by"] = off
    require(bool(pairs) and off <= tolerance, f"losses differ by {off}")
