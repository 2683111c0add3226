"""The hinge loss."""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Loss

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("hinge")
class Hinge(Loss):
    """The hinge loss of SAGAN, equation 4."""

    cites = ("lim2017geometric",)

    def d(self, real: "Tensor", fake: "Tensor") -> "Tensor":
        """Return E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]."""
        return (1 - real).relu().mean() + (1 + fake).relu().mean()
