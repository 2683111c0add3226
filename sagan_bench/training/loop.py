"""The training loop: a generator of events, so that whoever consumes it decides when to stop."""

import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sagan_bench.config.schema import RunConfig
from sagan_bench.data.feeding import Feed
from sagan_bench.data.store import Store
from sagan_bench.models.build import attention_blocks
from sagan_bench.training.captured import CapturedStep
from sagan_bench.training.draws import Draws
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Inputs, WholeStep


class Step(NamedTuple):
    """One generator update is done; ``row`` holds its measurements every ``log_every`` steps."""

    step: int
    row: dict[str, float] | None


class Diverged(NamedTuple):
    """A loss, logit or gradient is no longer finite; nothing follows."""

    step: int
    reason: str


def train(config: RunConfig, state: TrainState, store: Store) -> Iterator[Step | Diverged]:
    """Yield a `Step` after each generator update up to ``config.run.steps``, or one `Diverged`.

    All randomness is drawn from (seed, step), so that training from a restored state repeats what
    an uninterrupted run would have done.  The time that the consumer takes between events is not
    counted as training.  Where several processes train one run, each yields the same events.

    Raises:
        UserError: the step was to be captured as a CUDA graph, and cannot be.
    """
    size, flip, seed = config.training.batch_size, config.data.flip, config.seed_of("data")
    part = partial(state.context.part, micro=config.training.micro_batch)
    with (
        Feed(store.train, seed, size, state.device, flip=flip, part=part) as feed,
        Draws(config, state.context, state.device) as draws,
    ):
        state.context.barrier()  # patiently, for one that reads images: a step waits for nobody
        yield from _steps(config, state, feed, draws)


def _steps(
    config: RunConfig, state: TrainState, feed: Feed, draws: Draws
) -> Iterator[Step | Diverged]:
    training, device = config.training, state.device
    whole = WholeStep(config, state)
    take = CapturedStep(whole, device) if training.cuda_graph else whole
    gammas = _gammas(state)
    spent, since = 0.0, state.step
    state.generator.train()
    state.discriminator.train()

    while state.step < config.run.steps:
        began = time.perf_counter()
        step = state.step + 1
        noise = draws(step)
        state.begin(step)

        # Each of D's updates has images and noise of its own.
        first = (step - 1) * training.n_critic
        critic = ((feed(first + update), each) for update, each in enumerate(noise.critic))
        names, means, finite = take(Inputs(critic, noise.generator))
        state.step = step

        # Read where that is free, else once a row: all that it says, and whether we diverged.
        row = None
        due = step % config.run.log_every == 0 or step == config.run.steps
        if due or device.type == "cpu":
            *values, is_finite = torch.cat([means, *gammas.values(), finite[None]]).tolist()
            row = dict(zip([*names, *gammas], values, strict=True)) if due else None
            if not is_finite:
                yield Diverged(step, _what_diverged(dict(zip(names, values, strict=False))))
                return
        spent += time.perf_counter() - began
        if row is not None:
            real_images = (step - since) * training.n_critic * training.batch_size
            row["images_per_sec"] = real_images / spent
            spent, since = 0.0, step
        yield Step(step, row)


def _gammas(state: TrainState) -> dict[str, Tensor]:
    """Return the gamma of each block that has one, by what rows call it."""
    return {
        f"gamma.{network}.{name}": block.gamma
        for network in ("generator", "discriminator")
        for name, block in attention_blocks(getattr(state, network)).items()
        if block.has_gamma
    }


def _what_diverged(measured: Mapping[str, float]) -> str:
    bad = [f"{name} = {value}" for name, value in measured.items() if not math.isfinite(value)]
    return f"not finite: {', '.join(bad)}" if bad else "not finite in an earlier step"
