"""The control with the products of attention, and without its context."""

from bisect import bisect_left
from typing import Literal

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.registry import ATTENTION, FAMILIES
from sagan_bench.models.attention._base import LikeAnother

NARROWEST = 2.0
"""A width at which every map has a channel."""


@ATTENTION.register("wider")
class Wider(LikeAnother):
    """No block: each network has the width of as many FLOPs as with ``full``, or another kind.

    It is narrower than without a block, where that kind costs less than the layer that it replaces.
    """

    has_block = False

    class Settings(LikeAnother.Settings):
        """Which kind it is to cost as much as, and by what."""

        by: Literal["flops", "parameters"] = "flops"

    def widths(self, model: ModelConfig, image_size: int) -> tuple[float, float]:
        """Return the widths of G and D by FLOPs of a forward pass, or by parameters.

        At each a network has as nearly as many as with that attention as channels of its narrowest
        map, added or taken away one at a time, allow.
        """
        family = FAMILIES[model.architecture](model)
        as_full = FAMILIES[model.architecture](model.model_copy(update={"attention": self.like}))
        counted = "forward_flops" if self.settings.by == "flops" else "parameters"
        width, _ = super().widths(model, image_size)
        targets = getattr(as_full, counted)(image_size, width)
        channel = family.width_of_a_channel(image_size)
        fewer = max(0, int((width - NARROWEST) / channel))
        more = round(16 * width / channel)
        candidates = [width + channel * added for added in range(-fewer, more)]

        def nearest(network: int) -> float:
            def excess(width: float) -> int:
                count: int = getattr(family, counted)(image_size, width)[network]
                return count - targets[network]

            reached = bisect_left(candidates, 0, key=excess)
            near = candidates[max(0, reached - 1) : reached + 1]
            return min(near, key=lambda width: abs(excess(width)))

        return nearest(0), nearest(1)
