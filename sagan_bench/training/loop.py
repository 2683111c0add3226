"""The training loop: a generator of events, so that whoever consumes it decides when to stop."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sagan_bench.config import RunConfig, TrainingConfig
from sagan_bench.data.feeding import Feed
from sagan_bench.data.pixels import normalise
from sagan_bench.data.seeding import generator as stream
from sagan_bench.data.store import Store
from sagan_bench.models.build import attention_blocks, build
from sagan_bench.models.layers import frozen_spectral_norm
from sagan_bench.training.losses import D_LOSSES, adversarial_g, gradient_penalty


class Step(NamedTuple):
    """One generator update is done; ``row`` holds its measurements every ``log_every`` steps."""

    step: int
    row: dict[str, float] | None


class Diverged(NamedTuple):
    """A loss, logit or gradient is no longer finite; nothing follows."""

    step: int
    reason: str


class TrainState:
    """Everything that a step changes: both networks, G's average, both optimizers, the step.

    Weights are fp32, channels-last, on one device.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        training = config.training
        networks = build(config)
        self.step = 0
        self.device = device
        self.generator = networks.generator.to(device)
        self.discriminator = networks.discriminator.to(device)
        self.average = AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay)
        ).requires_grad_(False)
        lr_g, lr_d = training.learning_rates
        self.optimizer_g = _adam(self.generator, lr_g, training)
        self.optimizer_d = _adam(self.discriminator, lr_d, training)
        if training.compile:
            self.generator.compile()
            self.discriminator.compile()

    @property
    def ema(self) -> nn.Module:
        """G with the exponential moving average of its weights."""
        return self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and dictionaries only, for a checkpoint."""
        return {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step = state["step"]
        for part in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d"):
            getattr(self, part).load_state_dict(state[part])
        self.average.n_averaged.fill_(self.step)


def _adam(network: nn.Module, lr: float, training: TrainingConfig) -> Adam:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Adam(weights, lr=lr, betas=(training.beta1, training.beta2), fused=True)


class Recipe:
    """The two updates of one step, on given images and noise."""

    def __init__(self, config: RunConfig, state: TrainState) -> None:
        self.training = config.training
        self.state = state
        self.d_loss = D_LOSSES[config.training.loss]

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.training.precision == "bf16"
        return torch.autocast(self.state.device.type, torch.bfloat16, enabled=enabled)

    def update_d(self, real: Tensor, z: Tensor, share: Tensor) -> dict[str, Tensor]:
        """Descend D's loss once; G only makes images, without a graph or a power iteration."""
        state = self.state
        with torch.no_grad(), frozen_spectral_norm(state.generator), self._autocast():
            fake = state.generator(z)
        with self._autocast():
            logits = state.discriminator(torch.cat([real, fake]))
        real_logits, fake_logits = logits.chunk(2)
        loss = self.d_loss(real_logits, fake_logits)
        if self.training.loss == "wgan-gp":
            penalty = gradient_penalty(state.discriminator, real, fake, share)
            loss = loss + self.training.gp_weight * penalty
        norm = _descend(loss, state.optimizer_d)
        return {
            "loss_d": loss.detach(),
            "real_logits": real_logits.detach().mean(),
            "fake_logits": fake_logits.detach().mean(),
            "grad_norm_d": norm,
        }

    def update_g(self, z: Tensor) -> dict[str, Tensor]:
        """Descend G's loss once; D stays as it is: no gradient, no power iteration."""
        state = self.state
        state.discriminator.requires_grad_(False).eval()
        with self._autocast():
            logits = state.discriminator(state.generator(z))
        loss = adversarial_g(logits)
        norm = _descend(loss, state.optimizer_g)
        state.discriminator.requires_grad_(True).train()
        state.average.update_parameters(state.generator)
        return {"loss_g": loss.detach(), "grad_norm_g": norm}


def _descend(loss: Tensor, optimizer: Adam) -> Tensor:
    """Take one optimizer step and return the norm of the gradient."""
    optimizer.zero_grad()
    loss.backward()
    weights = optimizer.param_groups[0]["params"]
    norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    optimizer.step()
    return norm


def train(config: RunConfig, state: TrainState, store: Store) -> Iterator[Step | Diverged]:
    """Yield a `Step` after each generator update up to ``config.run.steps``, or one `Diverged`.

    All randomness is drawn from (seed, step), so that training from a restored state repeats what
    an uninterrupted run would have done.  The time that the consumer takes between events is not
    counted as training.
    """
    size, flip = config.training.batch_size, config.data.flip
    with Feed(store.train, config.seed, size, state.device, flip=flip) as feed:
        yield from _steps(config, state, feed)


def _steps(config: RunConfig, state: TrainState, feed: Feed) -> Iterator[Step | Diverged]:
    training, device = config.training, state.device
    recipe = Recipe(config, state)
    blocks = {
        f"gamma.{network}.{name}": block.gamma
        for network in ("generator", "discriminator")
        for name, block in attention_blocks(getattr(state, network)).items()
    }
    finite = torch.ones((), dtype=torch.bool, device=device)
    spent, since = 0.0, state.step
    state.generator.train()
    state.discriminator.train()

    while state.step < config.run.steps:
        began = time.perf_counter()
        step = state.step + 1

        # Discriminator: n_critic updates, each on images and noise of its own.
        for draw in range(training.n_critic):
            index = (step - 1) * training.n_critic + draw
            measured = recipe.update_d(
                _to_network(feed(index).images),
                _normal(config, device, "z", "d", step, draw),
                _share(config, device, step, draw),
            )

        # Generator, and its average.
        measured |= recipe.update_g(_normal(config, device, "z", "g", step))
        state.step = step

        # Divergence: looked at every step where that is free, else when the row is read anyway.
        due = step % config.run.log_every == 0 or step == config.run.steps
        finite &= torch.stack(list(measured.values())).isfinite().all()
        if (due or device.type == "cpu") and not finite.item():
            yield Diverged(step, _what_diverged(measured))
            return

        # Measurements, over the steps since the last row.
        row = None
        if due:
            row = {name: value.item() for name, value in (measured | blocks).items()}
        spent += time.perf_counter() - began
        if row is not None:
            real_images = (step - since) * training.n_critic * training.batch_size
            row["images_per_sec"] = real_images / spent
            spent, since = 0.0, step
        yield Step(step, row)


def _to_network(images: Tensor) -> Tensor:
    return normalise(images.contiguous(memory_format=torch.channels_last))  # bytes move sooner


def _normal(config: RunConfig, device: torch.device, *path: str | int) -> Tensor:
    """Draw the noise of one update: (batch_size, z_dim), float64 on the CPU, then fp32."""
    shape = (config.training.batch_size, config.model.z_dim)
    z = torch.randn(shape, generator=stream(config.seed, *path), dtype=torch.float64)
    return z.float().to(device, non_blocking=True)


def _share(config: RunConfig, device: torch.device, step: int, draw: int) -> Tensor:
    """Draw each image's place between real and fake, for the gradient penalty: (B, 1, 1, 1)."""
    shape = (config.training.batch_size, 1, 1, 1)
    uniform = torch.rand(shape, generator=stream(config.seed, "share", step, draw))
    return uniform.to(device, non_blocking=True)


def _what_diverged(measured: dict[str, Tensor]) -> str:
    values = {name: value.item() for name, value in measured.items()}
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    return f"not finite: {', '.join(bad)}" if bad else "not finite in an earlier step"
