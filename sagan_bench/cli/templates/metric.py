"""A metric of my own: the distance of mean features, to be changed.

python cli.py check FILE        what must hold before figures mean anything
"""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import RUNS, Evidence, Metric


@METRICS.register("my_metric")
class MyMetric(Metric):
    """What configurations and tables know: evaluation.metrics = ["my_metric"]."""

    title = "my_metric"  # in tables and figures
    better = "lower"  # or "higher"
    beyond = 1e6  # worse than any value, where lower is better
    extractor = RUNS  # whose features: the run's, another's name, or None for pixels

    def measure(self, evidence: Evidence) -> dict[str, float]:
        """Return |mean of features - mean of real ones|.

        ``evidence.features.pool`` is (N, d) and ``evidence.real`` (M, d), float32;
        ``evidence.images`` is uint8 (N, 3, S, S).  They are read, not changed.
        """
        means = evidence.features.pool.mean(0), evidence.real.mean(0)
        return {self.name: float((means[0] - means[1]).norm())}
