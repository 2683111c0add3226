"""The control with the products of attention, and without its context."""

from bisect import bisect_left

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import ATTENTION, FAMILIES
from sagan_bench.models.attention._base import LikeAnother


@ATTENTION.register("wider")
class Wider(LikeAnother):
    """No block: each network has the width of as many FLOPs as with ``full``, or another kind."""

    has_block = False

    def widths(self, model: ModelConfig, image_size: int) -> tuple[float, float]:
        """Return the widths of G and D by FLOPs.

        At each a forward pass costs as nearly as many as with that attention as channels of the
        network's narrowest map, added one at a time, allow.
        """
        family = FAMILIES[model.architecture](model)
        as_full = FAMILIES[model.architecture](model.model_copy(update={"attention": self.like}))
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
