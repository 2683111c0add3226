"""A loss: the non-saturating one, with R1 (Mescheder et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Critic, Loss


@LOSSES.register("softplus")
class Softplus(Loss):
    """Goodfellow et al. 2014, with the penalty on real images."""

    needs_double_backward = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return D's loss."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        """Return G's loss."""
        return F.softplus(-fake).mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, share: Tensor | None) -> Tensor:
        """Return E[||grad D(x)||^2] on real images."""
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
        return self.config.gp_weight * gradient.square().flatten(1).sum(1).mean()
