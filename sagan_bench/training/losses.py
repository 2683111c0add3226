"""Adversarial losses on logits (B,), fp32; each returns a scalar."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (SAGAN, equation 4)."""
    return (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return E[D(G(z))] - E[D(x)] (Gulrajani et al. 2017, equation 3, without its penalty)."""
    return fake_logits.mean() - real_logits.mean()


def adversarial_g(fake_logits: Tensor) -> Tensor:
    """Return -E[D(G(z))], G's loss under hinge and Wasserstein alike (SAGAN, equation 4)."""
    return -fake_logits.mean()


def gradient_penalty(
    discriminator: nn.Module, real: Tensor, fake: Tensor, share: Tensor, *labels: Tensor
) -> Tensor:
    """Return E[(||grad D(x)||_2 - 1)^2] at x = share * real + (1 - share) * fake.

    ``share`` is (B, 1, 1, 1) in [0, 1]; ``labels`` (B,), if D takes any, are those of x.  Source:
    Gulrajani et al. 2017, equation 3.  The seed project takes an optimizer step of its own for the
    penalty; here it is part of D's loss, as in the paper.
    """
    mixed = (share * real + (1 - share) * fake).requires_grad_()
    logits = discriminator(mixed, *labels)
    (gradient,) = torch.autograd.grad(logits.sum(), mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


D_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_d,
    "wgan-gp": wasserstein_d,
}
