"""Losses by their equations."""

import pytest
import torch
from torch import nn

from sagan_bench.config.schema import TrainingConfig
from sagan_bench.core.registry import LOSSES

PLAIN = TrainingConfig(gp_weight=1)
HINGE, WGAN_GP = LOSSES["hinge"](PLAIN), LOSSES["wgan-gp"](PLAIN)


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5, 1.0])
    assert HINGE.d(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.5 + 2) / 3)
    for loss in (HINGE, WGAN_GP):
        assert loss.g(fake).item() == pytest.approx(0.5 / 3)


def test_wasserstein_by_hand() -> None:
    assert WGAN_GP.d(torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5])).item() == -1.5


def test_gradient_penalty_of_a_linear_critic() -> None:
    linear = nn.Linear(12, 1, bias=False).double()
    critic = nn.Sequential(nn.Flatten(), linear)
    real, fake = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    share = torch.rand(5, 1, 1, 1, dtype=torch.float64)
    penalty = WGAN_GP.penalty(critic, real, fake, share)
    weight = linear.weight
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2)
    (gradient,) = torch.autograd.grad(penalty, weight)
    expected = 2 * (weight.norm() - 1) * weight / weight.norm()
    assert torch.allclose(gradient, expected)


def test_gradient_penalty_is_taken_between_real_and_fake() -> None:
    seen = []

    class Critic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach())
            return x.square().flatten(1).sum(1)

    real, fake = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    share = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)
    penalty = WGAN_GP.penalty(Critic(), real, fake, share)
    assert torch.equal(seen[0].flatten(), share.flatten())
    assert penalty.item() == pytest.approx(((2 * 0.25 - 1) ** 2 + (2 * 0.75 - 1) ** 2) / 2)
