"""Precision and recall by balls of nearest neighbours, which are measured together."""

from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric


class NeighbourMetric(Metric):
    """Kynkäänniemi et al. 2019: the share of one set within the balls of the other."""

    better = "higher"
    default = True
    blind_to = "whether distant parts of an image agree"
    cites = ("kynkaanniemi2019improved",)

    def measure(self, evidence: Evidence) -> Figures:
        """Return ``precision`` and ``recall``."""
        return evidence.once(_precision_and_recall)


def _precision_and_recall(evidence: Evidence) -> Figures:
    from torch_fidelity.metric_prc import prc_features_to_metric

    figures: dict[str, float] = prc_features_to_metric(
        evidence.features.pool,
        evidence.real,
        prc_neighborhood=evidence.protocol.prc_neighborhood,
        save_cpu_ram=True,
        prc_batch_size=1_000,  # memory for 1,000 x N distances; faster than larger blocks
        verbose=False,
    )
    return {key: figures[key] for key in ("precision", "recall")}
