"""How many real images are near generated ones."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._neighbours import NeighbourMetric


@METRICS.register("recall")
class Recall(NeighbourMetric):
    """The share of real images within the balls of generated ones; its term is precision's."""

    title = "recall"
    order = 60
