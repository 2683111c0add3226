"""The training loop: a generator of events, so that whoever consumes it decides when to stop."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Adam

from sagan_bench.config.schema import RunConfig, TrainingConfig
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.registry import LOSSES
from sagan_bench.data.feeding import Feed
from sagan_bench.data.pixels import normalise
from sagan_bench.data.store import Store
from sagan_bench.models.build import attention_blocks, build
from sagan_bench.models.calls import begin_step, extra_loss
from sagan_bench.models.layers import frozen_spectral_norm
from sagan_bench.models.synchronised import synchronise
from sagan_bench.training.draws import Draws, Noise, dtype_of
from sagan_bench.training.losses._base import Loss


class Step(NamedTuple):
    """One generator update is done; ``row`` holds its measurements every ``log_every`` steps."""

    step: int
    row: dict[str, float] | None


class Diverged(NamedTuple):
    """A loss, logit or gradient is no longer finite; nothing follows."""

    step: int
    reason: str


PARTS = ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")
"""Of a `TrainState`, what a checkpoint holds beside the step."""


class TrainState:
    """Everything that a step changes: both networks, G's average, both optimizers, the step.

    ``ema`` is G with the exponential moving average of its weights.  Weights are fp32 (or fp64, for
    precision ``fp64``), channels-last, on one device.  Where several processes train one run, each
    holds all of it, and ``parallel_g`` and ``parallel_d`` are the networks that exchange gradients.
    """

    def __init__(
        self, config: RunConfig, device: torch.device, context: DistributedContext = SINGLE_PROCESS
    ) -> None:
        training = config.training
        networks = build(config)
        self.step = 0
        self.device, self.context = device, context
        self.generator, self.discriminator = (net.to(device, dtype_of(config)) for net in networks)
        if context.world_size > 1:
            self.generator = synchronise(self.generator, device.type)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.ema_decay = training.ema_decay
        lr_g, lr_d = training.learning_rates
        self.optimizer_g = _adam(self.generator, lr_g, training)
        self.optimizer_d = _adam(self.discriminator, lr_d, training)
        if training.compile:
            self.generator.compile()
            self.discriminator.compile()
        self.parallel_g, self.parallel_d = (
            _parallel(net, context) for net in (self.generator, self.discriminator)
        )

    def begin(self, step: int) -> None:
        """Have the blocks that want to know it be at a step; averages follow G's."""
        for network in (self.generator, self.discriminator):
            begin_step(network, step)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average: ema <- decay * ema + (1 - decay) * G; the first update copies G.

        Buffers (BatchNorm's statistics, spectral norms' vectors) are G's.  What torch's
        AveragedModel computes, whose counter each step waits for a GPU.
        """
        averages: list[Tensor] = list(self.ema.parameters())
        weights: list[Tensor] = list(self.generator.parameters())
        if self.step == 0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - self.ema_decay)
        pairs = list(zip(self.ema.buffers(), self.generator.buffers(), strict=True))
        for dtype in {theirs.dtype for _, theirs in pairs}:  # of one dtype: one launch
            ours, theirs = zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True)
            torch._foreach_copy_(ours, theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and dictionaries only, for a checkpoint."""
        return {"step": self.step} | {part: getattr(self, part).state_dict() for part in PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step = state["step"]
        for part in PARTS:
            getattr(self, part).load_state_dict(state[part])


def _parallel(network: nn.Module, context: DistributedContext) -> nn.Module:
    if context.world_size == 1:
        return network
    # Buffers are equal by construction; to send them would overwrite what a graph still needs.
    with warnings.catch_warnings():  # newer torch has another name for it, older torch has not
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _adam(network: nn.Module, lr: float, training: TrainingConfig) -> Adam:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Adam(weights, lr=lr, betas=(training.beta1, training.beta2), fused=True)


class Recipe:
    """The two updates of one step, on given images, noise and labels.

    A batch is taken in micro-batches where the configuration says so: their gradients are summed
    and spectral norms are iterated for the first one only, so that an update is one update.
    """

    def __init__(self, config: RunConfig, state: TrainState) -> None:
        self.training = config.training
        self.state = state
        self.loss: Loss = LOSSES[config.training.loss](config.training)
        self._beside: tuple[Tensor | None, Tensor | None] = None, None

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.training.precision == "bf16"
        return torch.autocast(self.state.device.type, torch.bfloat16, enabled=enabled)

    def update_d(
        self, real: Tensor, noise: Noise, real_labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Descend D's loss once; G only makes images, without a graph or a power iteration."""
        state = self.state

        def loss(
            real: Tensor,
            z: Tensor,
            real_labels: Tensor | None,
            fake_labels: Tensor | None,
            share: Tensor | None,
        ) -> dict[str, Tensor]:
            with torch.no_grad(), frozen_spectral_norm(state.generator), self._autocast():
                fake = state.generator(z, fake_labels)
            both = _both(real_labels, fake_labels)
            with self._autocast():
                logits = state.parallel_d(torch.cat([real, fake]), both)
            extra = _extra("d", state.discriminator)  # before the penalty, another call of D
            real_logits, fake_logits = logits.chunk(2)
            loss = self.loss.d(real_logits, fake_logits)
            penalty = self.loss.penalty(
                lambda images: state.discriminator(
                    images, real_labels if len(images) == len(real) else both
                ),
                real,
                fake,
                share,
            )
            added = [each for each in (penalty, *extra.values()) if each is not None]
            return {
                "loss_d": sum(added, start=loss),
                "real_logits": real_logits.mean(),
                "fake_logits": fake_logits.mean(),
                **extra,
            }

        if self.loss.relative:
            self._beside = real, real_labels
        batch = real, noise.z, real_labels, noise.labels, noise.share
        measured = self._accumulated(loss, "loss_d", state.parallel_d, batch)
        return measured | {"grad_norm_d": _descend(state.optimizer_d)}

    def update_g(self, noise: Noise) -> dict[str, Tensor]:
        """Descend G's loss once; D stays as it is: no gradient, no power iteration."""
        state = self.state

        def loss(
            z: Tensor, labels: Tensor | None, real: Tensor | None, real_labels: Tensor | None
        ) -> dict[str, Tensor]:
            with self._autocast():
                logits = state.discriminator(state.parallel_g(z, labels), labels)
            extra = _extra("g", state.generator)
            if real is None:
                adversarial = self.loss.g(logits)
            else:
                with torch.no_grad(), self._autocast():
                    real_logits = state.discriminator(real, real_labels)
                adversarial = self.loss.g_beside(real_logits, logits)
            return {"loss_g": sum(extra.values(), start=adversarial), **extra}

        state.discriminator.requires_grad_(False).eval()
        try:
            batch = noise.z, noise.labels, *self._beside
            measured = self._accumulated(loss, "loss_g", state.parallel_g, batch)
        finally:  # also where memory runs out: a smaller batch is tried with the same networks
            state.discriminator.requires_grad_(True).train()
        norm = _descend(state.optimizer_g)
        state.follow()
        return measured | {"grad_norm_g": norm}

    def _accumulated(
        self,
        loss: Callable[..., dict[str, Tensor]],
        name: str,
        network: nn.Module,
        batch: Sequence[Tensor | None],
    ) -> dict[str, Tensor]:
        """Add the gradient of the mean of ``loss`` over a batch, and return its measurements.

        Args:
            loss: of one micro-batch, with what is measured beside it.
            name: of the loss among the measurements.
            network: what descends; its gradients are exchanged after the last micro-batch.
            batch: the arguments of ``loss``, split into micro-batches alike; None is none.
        """
        parts = self._micro_batches(batch)
        measured = []
        for number, part in enumerate(parts):
            with ExitStack() as stack:
                if number:
                    stack.enter_context(frozen_spectral_norm(network))
                if number + 1 < len(parts) and isinstance(network, DistributedDataParallel):
                    stack.enter_context(network.no_sync())
                values = loss(*part)
                (values[name] / len(parts)).backward()
            measured.append({key: value.detach() for key, value in values.items()})
        return {key: torch.stack([m[key] for m in measured]).mean() for key in measured[0]}

    def _micro_batches(self, batch: Sequence[Tensor | None]) -> list[tuple[Tensor | None, ...]]:
        if not self.training.micro_batch:
            return [tuple(batch)]
        size = self.training.micro_batch // self.state.context.world_size
        count = next(len(each) for each in batch if each is not None) // size
        columns = ([None] * count if each is None else each.split(size) for each in batch)
        return list(zip(*columns, strict=True))


def _both(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    """Return the labels of real and generated images, None for networks without classes."""
    return None if real is None or fake is None else torch.cat([real, fake])


def _extra(letter: str, network: nn.Module) -> dict[str, Tensor]:
    """Return what the blocks of a network add to its loss, by what rows call it; else nothing."""
    extra = extra_loss(network)
    return {} if extra is None else {f"extra_{letter}": extra}


def _descend(optimizer: Adam) -> Tensor:
    """Take one optimizer step, clear the gradients and return their norm."""
    weights = optimizer.param_groups[0]["params"]
    norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    optimizer.step()
    optimizer.zero_grad()
    return norm


def train(config: RunConfig, state: TrainState, store: Store) -> Iterator[Step | Diverged]:
    """Yield a `Step` after each generator update up to ``config.run.steps``, or one `Diverged`.

    All randomness is drawn from (seed, step), so that training from a restored state repeats what
    an uninterrupted run would have done.  The time that the consumer takes between events is not
    counted as training.  Where several processes train one run, each yields the same events.
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
    recipe, dtype = Recipe(config, state), dtype_of(config)
    gammas = {
        f"gamma.{network}.{name}": block.gamma
        for network in ("generator", "discriminator")
        for name, block in attention_blocks(getattr(state, network)).items()
        if block.has_gamma
    }
    finite = torch.ones((), dtype=torch.bool, device=device)
    spent, since = 0.0, state.step
    state.generator.train()
    state.discriminator.train()

    while state.step < config.run.steps:
        began = time.perf_counter()
        step = state.step + 1
        noise = draws(step)
        state.begin(step)

        # Discriminator: n_critic updates, each on images and noise of its own.
        for update, critic_noise in enumerate(noise.critic):
            real = feed((step - 1) * training.n_critic + update)
            labels = None if critic_noise.labels is None else real.labels
            measured = recipe.update_d(_to_network(real.images, dtype), critic_noise, labels)

        # Generator, and its average.
        measured |= recipe.update_g(noise.generator)
        state.step = step

        # What all processes measured: their losses are means over their parts of the batch.
        means = state.context.all_reduce_mean(torch.stack(list(measured.values())))
        finite &= means.isfinite().all()

        # Read where that is free, else once a row: all that it says, and whether we diverged.
        row = None
        due = step % config.run.log_every == 0 or step == config.run.steps
        if due or device.type == "cpu":
            *values, is_finite = torch.cat([means, *gammas.values(), finite[None]]).tolist()
            row = dict(zip([*measured, *gammas], values, strict=True)) if due else None
            if not is_finite:
                yield Diverged(step, _what_diverged(dict(zip(measured, values, strict=False))))
                return
        spent += time.perf_counter() - began
        if row is not None:
            real_images = (step - since) * training.n_critic * training.batch_size
            row["images_per_sec"] = real_images / spent
            spent, since = 0.0, step
        yield Step(step, row)


def _to_network(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)  # bytes move sooner
    return normalise(images).to(dtype)


def _what_diverged(measured: dict[str, float]) -> str:
    bad = [f"{name} = {value}" for name, value in measured.items() if not math.isfinite(value)]
    return f"not finite: {', '.join(bad)}" if bad else "not finite in an earlier step"
