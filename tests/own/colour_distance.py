"""A metric: the Fréchet distance of mean colours, by an extractor of its own."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.frechet import frechet
from sagan_bench.evaluation.metrics import Evidence, Metric


@METRICS.register("colour_distance")
class ColourDistance(Metric):
    """How far the colours of generated images are from those of real ones."""

    title, better, beyond, extractor = "FCD", "lower", 1e6, "mean-colours"

    def measure(self, evidence: Evidence) -> dict[str, float]:
        """Return the distance."""
        return {self.name: frechet(evidence.features.pool, evidence.real)}
