"""From trained weights to images: fixed noise, standing statistics, and a sampler."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sagan_bench.config import RunConfig
from sagan_bench.data.seeding import generator as stream
from sagan_bench.models.build import build, without_spectral_norm
from sagan_bench.models.layers import plain_state, spectral_norms
from sagan_bench.precision import full_precision

BLOCK = 1024
"""Noise is drawn in blocks of this many rows, so that any row can be had without those before."""

POWER_ITERATIONS = 50
"""Before weights are exported: averaged ones have no singular vectors of their own."""


def noise(seed: int, start: int, stop: int, z_dim: int) -> Tensor:
    """Return rows start..stop of the sampling noise of ``seed``: (stop - start, z_dim), N(0, 1)."""
    first = start // BLOCK
    blocks = [
        torch.randn(BLOCK, z_dim, generator=stream(seed, "sample", block), dtype=torch.float64)
        for block in range(first, (max(stop, 1) - 1) // BLOCK + 1)
    ]
    return torch.cat(blocks)[start - first * BLOCK : stop - first * BLOCK].float()


@torch.no_grad()
def standing(config: RunConfig, generator: nn.Module, batches: int) -> nn.Module:
    """Return G as it is scored: plain weights, evaluation mode, statistics of its own.

    Spectral norms are iterated 50 times and then folded into the weights.  BatchNorm's statistics
    are the mean over ``batches`` batches of fixed noise, in fp32: with those left by training, the
    same weights would score differently.  ``generator`` itself is not changed.
    """
    copied = copy.deepcopy(generator).eval()
    for norm, weight in spectral_norms(copied):
        norm.iterate(weight, POWER_ITERATIONS)
    plain = build(without_spectral_norm(config)).generator
    plain.load_state_dict(plain_state(copied))
    device = next(copied.parameters()).device
    shape = (config.training.batch_size, config.model.z_dim)
    loader = (
        torch.randn(shape, generator=stream(config.seed, "standing", k), dtype=torch.float64)
        .float()
        .to(device)
        for k in range(batches)
    )
    plain.to(device)
    with full_precision():
        update_bn(loader, plain)
    return plain.eval().requires_grad_(False)


def sampler(standing_generator: nn.Module, z_dim: int) -> Callable[[int, int, int], Tensor]:
    """Return ``sample(seed, start, stop)``: images (stop - start, 3, S, S) in [-1, 1] on the CPU.

    Image i depends on ``seed`` and i alone, but for rounding that varies with the batch.
    """
    device = next(standing_generator.parameters()).device

    @torch.no_grad()
    def sample(seed: int, start: int, stop: int) -> Tensor:
        z = noise(seed, start, stop, z_dim).to(device)
        with full_precision():
            return standing_generator(z).cpu().contiguous()

    return sample
