"""R3GAN's loss: the relativistic pairing loss, with penalties on real and generated images.

Huang et al. 2024 (arXiv 2501.05441), equations 2 to 4: each real image is held against a generated
one, and R1 + R2 keep D's gradient small at both.
"""

import torch
from torch import Tensor, autograd
from torch.nn.functional import softplus

from sagan_bench.config.section import Section
from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Critic, Loss


@LOSSES.register("relativistic")
class Relativistic(Loss):
    """f(t) = log(1 + exp(-t)) of the differences of logits of pairs."""

    needs_double_backward = relative = True

    class Settings(Section):
        """The weight of both penalties; the paper's goes from 0.05 to 150 with the data."""

        penalty: float = 1.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return E[f(D(x) - D(G(z)))]."""
        return softplus(fake - real).mean()

    def g_beside(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return E[f(D(G(z)) - D(x))]."""
        return softplus(real - fake).mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, share: Tensor | None) -> Tensor:
        """Return weight / 2 * (E||grad D(x)||^2 + E||grad D(G(z))||^2)."""
        images = torch.cat([real, fake]).detach().requires_grad_()
        (gradient,) = autograd.grad(critic(images).sum(), images, create_graph=True)
        squares = gradient.square().flatten(1).sum(1)
        weight: float = self.settings.penalty
        return weight * squares.mean()  # over both halves: the mean is half of the sum of means
