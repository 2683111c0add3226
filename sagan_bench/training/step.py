"""One step: n_critic updates of D, one of G and its average, as one function of its inputs."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Adam

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.registry import LOSSES
from sagan_bench.data.feeding import Batch
from sagan_bench.data.pixels import to_network
from sagan_bench.models.calls import extra_loss
from sagan_bench.models.layers import frozen_spectral_norm
from sagan_bench.training.draws import Noise, dtype_of
from sagan_bench.training.losses._base import Loss
from sagan_bench.training.state import TrainState


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
                whole = values[name] if len(parts) == 1 else values[name] / len(parts)
                whole.backward()
            measured.append({key: value.detach() for key, value in values.items()})
        if len(measured) == 1:  # its mean, without two launches for each
            return measured[0]
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


class Inputs(NamedTuple):
    """What one step is made of."""

    critic: Iterable[tuple[Batch, Noise]]
    """Real images and noise of each update of D."""
    generator: Noise
    """Of G's update."""


class Measured(NamedTuple):
    """What was measured in one step, where it was computed: to read it waits for a GPU."""

    names: tuple[str, ...]
    means: Tensor
    """One number a name, over all processes: losses are means over their parts of the batch."""
    finite: Tensor
    """Whether those of all steps so far were finite, a boolean."""


class WholeStep:
    """The step that `Inputs` make of a state, whoever takes it.

    From the second one on it is the same operations on the same memory, and waits for nothing: what
    a CUDA graph needs.  The number of the step it leaves to who takes it.
    """

    def __init__(self, config: RunConfig, state: TrainState) -> None:
        self.state, self.recipe, self.dtype = state, Recipe(config, state), dtype_of(config)
        self.finite = torch.ones((), dtype=torch.bool, device=state.device)

    def __call__(self, inputs: Inputs) -> Measured:
        """Update D, G and its average, and return what was measured."""
        measured: dict[str, Tensor] = {}
        for real, noise in inputs.critic:
            labels = None if noise.labels is None else real.labels
            measured = self.recipe.update_d(to_network(real.images, self.dtype), noise, labels)
        measured |= self.recipe.update_g(inputs.generator)
        means = self.state.context.all_reduce_mean(torch.stack(list(measured.values())))
        self.finite &= means.isfinite().all()
        return Measured(tuple(measured), means, self.finite)
