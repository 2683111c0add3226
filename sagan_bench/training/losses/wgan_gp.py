"""The Wasserstein loss with gradient penalty."""

from typing import TYPE_CHECKING

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Critic, Loss

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("wgan-gp")
class WganGp(Loss):
    """The loss of Gulrajani et al. 2017, equation 3, of networks without spectral norm.

    The seed project takes an optimizer step of its own for the penalty; here it is part of D's
    loss, as in the paper.
    """

    needs_double_backward = True
    cites = ("gulrajani2017improved",)
    mixes = True

    def d(self, real: "Tensor", fake: "Tensor") -> "Tensor":
        """Return E[D(G(z))] - E[D(x)]."""
        return fake.mean() - real.mean()

    def penalty(
        self, critic: Critic, real: "Tensor", fake: "Tensor", share: "Tensor | None"
    ) -> "Tensor":
        """Return lambda E[(||grad D(x)||_2 - 1)^2] at x = share * real + (1 - share) * fake."""
        from torch import autograd

        assert share is not None
        mixed = (share * real + (1 - share) * fake).requires_grad_()
        (gradient,) = autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        return self.config.gp_weight * (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ValueError where there is spectral normalisation, or a compiled network."""
        normed = config.model.spectral_norm
        if (normed.generator, normed.discriminator) != ("none", "none"):
            raise ValueError(
                f"loss {cls.name} does not go with spectral normalisation; add --set "
                "model.spectral_norm.generator=none --set model.spectral_norm.discriminator=none"
            )
        super().check(config)
