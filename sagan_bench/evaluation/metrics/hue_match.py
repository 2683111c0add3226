"""Whether distant shapes agree in hue."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._twins import TwinMetric


@METRICS.register("hue_match")
class HueMatch(TwinMetric):
    """The share of images whose two shapes have one hue."""

    order = 80
