"""Where a side is looked up per layer, in a table that says one side for all: four blocks.

ajbrock/BigGAN-PyTorch, BigGAN.py, D_arch[32]: resolutions 16, 16, 16, 16 (true: 16, 8, 8, 8), so
that --D_attn 16 puts four blocks into D.  Here there are three layers, and as many blocks.
"""

from collections import OrderedDict

from torch import nn

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.families.dcgan import Dcgan, Discriminator, channels_by_side
from sagan_bench.models.placement import Places

RESOLUTIONS = {16: 16, 8: 16, 4: 16}


class Critic(Discriminator):
    """A block behind each layer whose resolution, by the table, is asked for."""

    def __init__(self, model: ModelConfig, image_size: int, width: float, **how: bool) -> None:
        super().__init__(model, image_size, width, **how)
        channels = channels_by_side(image_size, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in self.named_children():
            if name.startswith("attention"):
                continue
            layers[name] = layer
            side = int(name.removeprefix("down")) if name.startswith("down") else 0
            if RESOLUTIONS.get(side) in model.attention.discriminator:
                attention = model.attention.model_copy(update={"discriminator": (side,)})
                of_layer = model.model_copy(update={"attention": attention})
                layers |= Places("discriminator", of_layer, channels, norm="none").at(side, {})
        self._modules = layers


@FAMILIES.register("planted-four-at-a-side")
class Planted(Dcgan):
    """Planted."""

    discriminator = Critic
