"""How many generated images are near real ones."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._neighbours import NeighbourMetric


@METRICS.register("precision")
class Precision(NeighbourMetric):
    """The share of generated images within the balls of real ones."""

    title = "precision"
    glossary = (
        "precision, recall",
        "Share of generated images near real ones, and the reverse.",
    )
    order = 50
