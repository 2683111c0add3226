"""Losses: their signs, means over a batch, and penalties."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sagan_bench.config.schema import TrainingConfig
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject
from sagan_bench.training.losses._base import Loss

IMAGES = 6


def _loss(subject: Subject) -> Loss:
    loss: Loss = subject.component(TrainingConfig(loss=subject.name))
    return loss


def _logits() -> tuple[Tensor, Tensor]:
    real, fake = (0.2 * torch.randn(2, IMAGES)).unbind()
    return real.requires_grad_(), fake.requires_grad_()


def _of_g(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    return loss.g_beside(real.detach(), fake) if loss.relative else loss.g(fake)


def _scalar(value: Any, what: str) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() or not value.isfinite():
        raise Broken(f"{what} is no finite scalar", "end with mean()")
    return value


def signs(subject: Subject) -> str:
    """D's loss falls where real logits rise and fake ones fall; G's where fake ones rise."""
    loss, (real, fake) = _loss(subject), _logits()
    d = torch.autograd.grad(_scalar(loss.d(real, fake), "d()"), (real, fake), allow_unused=True)
    g = torch.autograd.grad(_scalar(_of_g(loss, real, fake), "g()"), fake, allow_unused=True)
    wanted = (("d", "real", -1), ("d", "fake", 1), ("g", "fake", -1))
    for (function, logits, way), slope in zip(wanted, (*d, *g), strict=True):
        if slope is None or not slope.isfinite().all() or way * float(slope.mean()) <= 0:
            goes = "nowhere" if slope is None else f"{float(slope.mean()):+.3g}"
            raise Broken(
                f"{function}()'s slope by the {logits} logits is {goes}",
                f"it must {'rise' if way > 0 else 'fall'} where D says more of them are real",
            )
    return "D learns to say real, G to be taken for it"


def mean(subject: Subject) -> str:
    """A batch twice has the loss of the batch: micro-batches are averaged."""
    loss, (real, fake) = _loss(subject), _logits()
    values = (
        ("d", loss.d(real, fake), loss.d(real.repeat(2), fake.repeat(2))),
        ("g", _of_g(loss, real, fake), _of_g(loss, real.repeat(2), fake.repeat(2))),
    )
    for name, single, double in values:
        if not torch.isclose(single, double, rtol=1e-4):
            raise Broken(
                f"{name}() of a batch twice is {float(double):.4g}, of it {float(single):.4g}",
                "take the mean over images, not the sum",
            )
    return "over images"


class _Single(torch.autograd.Function):
    """x itself, without a double backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return x."""
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient."""
        return gradient


def penalty(subject: Subject) -> str:
    """A penalty is finite, reaches D, and says whether it needs double backward and mixes."""
    loss, component = _loss(subject), subject.component
    images = torch.rand(2, IMAGES, 3, 8, 8) * 2 - 1
    share = torch.rand(IMAGES, 1, 1, 1) if component.mixes else None
    for single in (False, True):
        critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 1))

        def score(x: Tensor, critic: nn.Module = critic, single: bool = single) -> Tensor:
            logits: Tensor = critic(_Single.apply(x) if single else x)
            return logits.flatten()

        try:
            added = loss.penalty(score, images[0], images[1], share)
            if added is None:
                raise Skipped("it has none")
            _scalar(added, "penalty()").backward()
        except RuntimeError as error:
            if not (single and "once_differentiable" in str(error)):
                raise
            if not component.needs_double_backward:
                raise Broken(
                    "its penalty takes a gradient of a gradient", "set needs_double_backward = True"
                ) from error
        if not single and not any(w.grad is not None and w.grad.any() for w in critic.parameters()):
            raise Broken("its penalty has no gradient in D", "use create_graph=True")
    return "its gradient reaches D"


LOSS = (signs, mean, penalty)
