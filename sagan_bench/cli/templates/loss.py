"""A loss of my own: the least-squares one (Mao et al. 2017), to be changed.

python cli.py check FILE        what must hold before figures mean anything
"""

from torch import Tensor

from sagan_bench.config.section import Section
from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Loss


@LOSSES.register("my-loss")
class MyLoss(Loss):
    """What configurations know: training.loss = my-loss.

    Logits are (B,), fp32.  Losses are means over images: micro-batches are averaged.
    """

    needs_double_backward = False  # True where the penalty takes a gradient with create_graph
    mixes = False  # True where the penalty is taken between real and generated images

    class Settings(Section):
        """Its own settings: --set training.options.real=0.9."""

        real: float = 1.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return D's loss, which falls where real logits rise and fake ones fall."""
        target: float = self.settings.real
        return (real - target).square().mean() + (fake + target).square().mean()

    def g(self, fake: Tensor) -> Tensor:
        """Return G's loss, which falls where fake logits rise."""
        return (fake - self.settings.real).square().mean()
