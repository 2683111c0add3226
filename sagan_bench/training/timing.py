"""What a step takes here, and which micro-batch fits: by trying, on noise in place of images."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.errors import UserError
from sagan_bench.data.feeding import Batch
from sagan_bench.models.build import flops_per_step
from sagan_bench.training.captured import WARM_UP, CapturedStep
from sagan_bench.training.draws import dtype_of, step_noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Inputs, Recipe, WholeStep

MOST_FLOPS = {"cpu": 5e11}
"""Of a step that is timed, by type of device; a smaller batch stands for one that takes more."""
TIMED = 3


def seconds_per_flop(config: RunConfig, device: torch.device) -> float:
    """Return the wall time of a step over its FLOPs (`flops_per_step`), the median of three.

    Where a card replays its steps (``training.cuda_graph``), that of a replay.

    Where the whole batch would take long, or does not fit, a part of it is timed: per FLOP it
    takes as long or longer.
    """
    size = config.training.batch_size
    an_image = flops_per_step(config) // size
    while size > 2 and size * an_image > MOST_FLOPS.get(device.type, float("inf")):
        size //= 2
    while True:
        try:
            return _seconds(_of_batch(config, size), device) / (size * an_image)
        except (RuntimeError, MemoryError) as error:
            if not system.is_out_of_memory(error) or size <= 2:
                raise
            size //= 2


def _of_batch(config: RunConfig, size: int) -> RunConfig:
    training = config.training.model_copy(update={"batch_size": size, "micro_batch": None})
    return config.model_copy(update={"training": training})


def _seconds(config: RunConfig, device: torch.device) -> float:
    state = TrainState(config, device)
    is_replayed = config.training.cuda_graph and device.type == "cuda"
    take = _replayed(config, state) if is_replayed else partial(try_step, config, state)
    untimed, times = WARM_UP + 1 if is_replayed else 1, []
    for step in range(untimed + TIMED):
        began = time.perf_counter()
        take(step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[untimed:])


def _replayed(config: RunConfig, state: TrainState) -> Callable[[int], None]:
    """Return what takes a step by its number as `CapturedStep` does, on noise of its own."""
    size, side, device = config.training.batch_size, config.data.image_size, state.device
    captured = CapturedStep(WholeStep(config, state), device)
    images = torch.randint(256, (size, 3, side, side), device=device).to(torch.uint8)
    real = Batch(images, torch.zeros(size, dtype=torch.int64, device=device))

    def take(step: int) -> None:
        drawn = step_noise(config, state.context, step)
        critic = [(real, noise.to(device)) for noise in drawn.critic]
        captured(Inputs(critic, drawn.generator.to(device)))

    return take


def try_step(
    config: RunConfig, state: TrainState, step: int = 1, *, images: int | None = None
) -> None:
    """Take one step on noise: as much time and memory as a step of training.

    ``images``: this process's, by default the whole batch.
    """
    size, side = images or config.training.batch_size, config.data.image_size
    recipe, drawn = Recipe(config, state), step_noise(config, state.context, step)
    real = torch.rand(size, 3, side, side, device=state.device, dtype=dtype_of(config)) * 2 - 1
    real = real.contiguous(memory_format=torch.channels_last)
    for noise in drawn.critic:
        noise = noise.to(state.device)
        recipe.update_d(real, noise, noise.labels)  # labels of generated images do for real ones
    recipe.update_g(drawn.generator.to(state.device))


def out_of_memory(config: RunConfig, state: TrainState) -> UserError:
    """Return the error that says which micro-batch fits, after trying ever smaller ones.

    What ran out must be gone already; the state is of no more use.
    """
    training = config.training
    size = training.micro_batch or training.batch_size
    problem = f"out of memory on {state.device} with {size} images at a time"
    whole, world = training.batch_size, state.context.world_size
    smaller = [less for less in range(size - 1, 1, -1) if whole % less == 0 and less % world == 0]
    if not smaller:
        among = f" among {world} processes" if world > 1 else ""
        return UserError(
            f"{problem}, and no micro-batch divides a batch of {whole}{among}; choose another "
            "--batch-size"
        )
    if world > 1:  # the others are not here to try with
        return UserError(
            f"{problem} in all {world} processes; add --micro-batch {smaller[0]}, or use more of "
            "them"
        )
    if fits := next((less for less in smaller if _fits(config, state, less)), None):
        return UserError(
            f"{problem}; {fits} fit: add --micro-batch {fits} (BatchNorm then sees {fits} images "
            f"at once, and the run is another), or --batch-size {fits}"
        )
    return UserError(f"{problem}, and with fewer; use smaller images, or a smaller model.width")


def _fits(config: RunConfig, state: TrainState, size: int) -> bool:
    training = config.training.model_copy(update={"micro_batch": size})
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    for optimizer in (state.optimizer_g, state.optimizer_d):
        optimizer.zero_grad()
    try:
        try_step(config.model_copy(update={"training": training}), state)
    except (RuntimeError, MemoryError) as error:
        if not system.is_out_of_memory(error):
            raise
        return False
    return True
