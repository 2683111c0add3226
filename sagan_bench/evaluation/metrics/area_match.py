"""Whether distant shapes agree in size."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._twins import TwinMetric


@METRICS.register("area_match")
class AreaMatch(TwinMetric):
    """The share of images whose two shapes have one area."""

    order = 90
