"""A family of networks of my own: a G and a D, to be changed.

python cli.py check FILE        what must hold before figures mean anything

Here is said what makes a feature map of each side; where blocks stand, widths, spectral norm and
the ends are `Pyramid`'s.  A family of other networks has ``networks`` of its own: see `Family`.
Weights are drawn by the seed and the names of layers: `nn.init` in ``__init__`` has no effect; what
no layer's rule fills (a parameter or buffer of your own) needs ``reset_parameters``.
"""

from torch import nn

from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families._pyramid import Pyramid


@FAMILIES.register("my-family")
class MyFamily(Pyramid):
    """What configurations know: model.architecture = my-family."""

    most = 8  # channels double as sides halve, up to so many widths
    multiple = 1  # of which the channels of each map are one
    norm = "batch"  # what G's layers normalise with, as blocks are told

    def up(self, inputs: int, outputs: int) -> nn.Module:
        """Return what makes (B, outputs, 2H, 2W) of G's map, (B, inputs, H, W)."""
        return nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def down(self, inputs: int, outputs: int) -> nn.Module:
        """Return what makes (B, outputs, H / 2, W / 2) of D's map, (B, inputs, H, W)."""
        return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.1))

    # By default ``begin`` is a linear layer, ``paint`` and ``look`` are 1 x 1 convolutions to and
    # from pixels, ``judge`` is a linear layer on the mean over positions, and ``mapping`` is none.
