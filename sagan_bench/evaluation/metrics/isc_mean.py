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
    column = "is"

    def measure(self, evidence: Evidence) -> Figures:
        """Return ``isc_mean`` and ``isc_std``."""
        from torch_fidelity import metric_isc as isc

        logits, splits = evidence.features.logits, evidence.protocol.isc_splits
        if not logits.shape[1]:  # the extractor knows no classes
            return dict.fromkeys(("isc_mean", "isc_std"))
        figures = isc.isc_features_to_metric(logits, splits)
        keys = isc.KEY_METRIC_ISC_MEAN, isc.KEY_METRIC_ISC_STD
        return dict(zip(("isc_mean", "isc_std"), (figures[key] for key in keys), strict=True))
