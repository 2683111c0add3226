"""The control with the products of attention, and without its context."""

from bisect import bisect_left

from sagan_bench.config.options import Options
from sagan_bench.config.schema import ModelConfig, Section
from sagan_bench.core.registry import ATTENTION, FAMILIES
from sagan_bench.models.attention._base import Attention


@ATTENTION.register("wider")
class Wider(Attention):
    """No block: each network has the width of as many FLOPs as with ``full``, or another kind."""

    is_attention = False
    has_block = False

    class Settings(Section):
        """Which kind it is to cost as much as."""

        like: str = "full"

    def widths(self, model: ModelConfig, image_size: int) -> tuple[float, float]:
        """Return the widths of G and D by FLOPs.

        At each a forward pass costs as nearly as many as with that attention as channels of the
        network's narrowest map, added one at a time, allow.
        """
        full = self.config.model_copy(update={"kind": self.settings.like, "options": Options()})
        family = FAMILIES[model.architecture](model)
        as_full = FAMILIES[model.architecture](model.model_copy(update={"attention": full}))
        width, _ = super().widths(model, image_size)
        targets = as_full.forward_flops(image_size, width)
        channel = family.width_of_a_channel(image_size)
        candidates = [width + channel * added for added in range(round(16 * width / channel))]

        def nearest(network: int) -> float:
            def excess(width: float) -> int:
                flops: int = family.forward_flops(image_size, width)[network]
                return flops - targets[network]

            reached = bisect_left(candidates, 0, key=excess)
            near = candidates[max(0, reached - 1) : reached + 1]
            return min(near, key=lambda width: abs(excess(width)))

        return nearest(0), nearest(1)
