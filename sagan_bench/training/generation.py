"""From trained weights to images: fixed noise, standing statistics, and a sampler."""

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.precision import full_precision
from sagan_bench.core.seeding import generator as stream
from sagan_bench.models.build import plain_generator
from sagan_bench.models.layers import plain_state, spectral_norms

BLOCK = 1024
"""Noise is drawn in blocks of this many rows, so that any row can be had without those before."""

POWER_ITERATIONS = 50
"""Before weights are exported: averaged ones have no singular vectors of their own."""


def noise(seed: int, start: int, stop: int, z_dim: int, truncation: float | None = None) -> Tensor:
    """Return rows start..stop of the sampling noise of ``seed``: (stop - start, z_dim).

    N(0, 1), or that law under the condition |z| < ``truncation``: the normal's quantiles in its
    place, so that a row of less truncation is the same picture further out.
    """
    first = start // BLOCK
    blocks = [
        torch.randn(BLOCK, z_dim, generator=stream(seed, "sample", block), dtype=torch.float64)
        for block in range(first, (max(stop, 1) - 1) // BLOCK + 1)
    ]
    rows = torch.cat(blocks)[start - first * BLOCK : stop - first * BLOCK]
    return truncated(rows, truncation).float()


def truncated(z: Tensor, truncation: float | None) -> Tensor:
    """Return normal noise moved to the truncated law, quantile by quantile."""
    if truncation is None:
        return z
    bound = z.new_tensor(truncation)
    below, inside = torch.special.ndtr(-bound), torch.special.ndtr(bound) * 2 - 1
    return torch.special.ndtri(below + inside * torch.special.ndtr(z))


def balanced(classes: int) -> Tensor | None:
    """Return the labels of a sample set, None without classes: each class in turn."""
    return torch.arange(classes) if classes else None


def standing_inputs(
    config: RunConfig, batch: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return the fixed noise of one batch, and uniform classes if there are any."""
    seed, size, classes = config.seed, config.training.batch_size, config.model.classes
    shape, source = (size, config.model.z_dim), stream(seed, "standing", batch)
    z = torch.randn(shape, generator=source, dtype=torch.float64).float()
    if not classes:
        return system.sent(z, device), None
    labels = torch.randint(classes, (size,), generator=stream(seed, "standing-label", batch))
    return system.sent(z, device), system.sent(labels, device)


def _average_statistics(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> None:
    """Make BatchNorm's statistics the mean of those of all batches, and leave training mode on.

    What torch's `update_bn` computes, which asks the device in each layer how many batches it saw.
    A network without BatchNorm is left alone.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    for number, inputs in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1 / number
        network(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


Statistics = list[tuple[Tensor, Tensor]]
"""Mean and variance of some BatchNorm layers, (C,) each, in their order."""


def statistics_of(norms: Iterable[_BatchNorm]) -> Statistics:
    """Return copies of the standing statistics of BatchNorm layers."""
    return [(mean.clone(), var.clone()) for mean, var in map(_buffers, norms)]


def put_statistics(norms: Iterable[_BatchNorm], statistics: Statistics) -> None:
    """Have BatchNorm layers stand with these statistics."""
    for norm, values in zip(norms, statistics, strict=True):
        for buffer, value in zip(_buffers(norm), values, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def statistics_under(
    network: nn.Module,
    norms: Sequence[_BatchNorm],
    batches: Iterable[tuple[Tensor, Tensor | None]],
    around: Callable[[], AbstractContextManager[None]],
    changes: Sequence[Callable[[], AbstractContextManager[None]]],
) -> list[Statistics]:
    """Return the statistics that layers have under each of some changes of a standing network.

    They are made as by `standing`, over all batches; those of all other layers stay.

    Args:
        network: in evaluation mode, as it is left.
        norms: the layers that can see a change.
        batches: of noise and labels, as `standing_inputs` returns them.
        around: entered for each batch, with which the network is called once under each change.
        changes: each entered while the network runs.
    """
    every = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    before, momenta = statistics_of(every), [norm.momentum for norm in every]
    made = [statistics_of(norms) for _ in changes]
    network.train()
    for norm in every:
        norm.momentum = 0.0
    try:
        for number, inputs in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number
            with around(), full_precision():
                for index, change in enumerate(changes):
                    put_statistics(norms, made[index])
                    with change():
                        network(*inputs)
                    made[index] = statistics_of(norms)
    finally:
        network.eval()
        for norm, momentum in zip(every, momenta, strict=True):
            norm.momentum = momentum
        put_statistics(every, before)
    return made


def _buffers(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


@torch.no_grad()
def standing(config: RunConfig, generator: nn.Module, batches: int) -> nn.Module:
    """Return G as it is scored: plain weights, evaluation mode, statistics of its own.

    Spectral norms are iterated 50 times and then folded into the weights.  BatchNorm's statistics
    are the mean over ``batches`` batches of fixed noise (and uniform classes), in fp32: with those
    left by training, the same weights would score differently.  ``generator`` itself is not
    changed.
    """
    copied = copy.deepcopy(generator).eval()
    for norm, weight in spectral_norms(copied):
        norm.iterate(weight, POWER_ITERATIONS)
    device = next(copied.parameters()).device
    plain = plain_generator(config, plain_state(copied), device)
    with full_precision():
        inputs = (standing_inputs(config, batch, device) for batch in range(batches))
        _average_statistics(plain, inputs)
    return plain.eval().requires_grad_(False)


def sampler(
    standing_generator: nn.Module,
    z_dim: int,
    *,
    labels: Tensor | None = None,
    truncation: float | None = None,
) -> Callable[[int, int, int], Tensor]:
    """Return ``sample(seed, start, stop)``: images (stop - start, 3, S, S) in [-1, 1] on the CPU.

    Image i depends on ``seed`` and i alone, but for rounding that varies with the batch.

    Args:
        standing_generator: as `standing` returns it.
        z_dim: components of its noise.
        labels: classes of the first images, (K,) int64, which repeat; None without classes.
        truncation: see `noise`.
    """

    def sample(seed: int, start: int, stop: int) -> Tensor:
        z = noise(seed, start, stop, z_dim, truncation)
        rows = None if labels is None else labels[torch.arange(start, stop) % len(labels)]
        return draw(standing_generator, z, rows)

    return sample


@torch.no_grad()
def draw(
    standing_generator: nn.Module, z: Tensor, labels: Tensor | None = None, *mix: Tensor
) -> Tensor:
    """Return the images (B, 3, S, S) of z (B, z_dim) and labels (B,), in fp32, on the CPU.

    ``mix``: other labels and their share, (B,) each, for images between classes.
    """
    device = next(standing_generator.parameters()).device
    with full_precision():
        inputs = (z, labels, *mix)
        sent = (None if each is None else system.sent(each, device) for each in inputs)
        return standing_generator(*sent).cpu().contiguous()
