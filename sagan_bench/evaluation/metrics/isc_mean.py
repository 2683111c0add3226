"""The inception score."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric


@METRICS.register("isc_mean")
class InceptionScore(Metric):
    """Salimans et al. 2016: exp E KL(p(y|x) || p(y)), the mean over splits of the images."""

    title = "IS"
    better = "higher"
    spread = "isc_std"
    default = True
    blind_to = "whether distant parts of an image agree"
    glossary = ("IS", "Inception score: how certain and how varied the classes of the images are.")
    order = 40
    cites = ("salimans2016improved",)
    column = "is"

    def measure(self, evidence: Evidence) -> Figures:
        """Return ``isc_mean`` and ``isc_std``."""
        from torch_fidelity.metric_isc import isc_features_to_metric

        logits, splits = evidence.features.logits, evidence.protocol.isc_splits
        if not logits.shape[1]:  # the extractor knows no classes
            return {"isc_mean": None, "isc_std": None}
        figures = isc_features_to_metric(logits, splits)
        theirs = "inception_score"
        return {"isc_mean": figures[f"{theirs}_mean"], "isc_std": figures[f"{theirs}_std"]}
