"""What is measured by the rule of the data set ``twins``, all of it together."""

from collections.abc import Mapping
from typing import Any

from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric


class TwinMetric(Metric):
    """A share of images that obey the rule; no network measures it."""

    better = "higher"
    extractor = None
    is_share = True

    @classmethod
    def switch(cls) -> str:
        """Return the data that it is measured on."""
        return "data.source=twins"

    @classmethod
    def wanted(cls, evaluation: Mapping[str, Any], kind: str) -> bool:
        """Return whether the images are ``twins``."""
        return kind == "twins"

    def measure(self, evidence: Evidence) -> Figures:
        """Return all figures of `sagan_bench.evaluation.coherence.coherence`."""
        return evidence.once(_by_rule)


def _by_rule(evidence: Evidence) -> Figures:
    from sagan_bench.evaluation.coherence import coherence

    return coherence(evidence.images)
