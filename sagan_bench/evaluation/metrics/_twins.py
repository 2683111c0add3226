"""What is measured by the rule of the data set ``twins``, all of it together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sagan_bench.evaluation.metrics._base import Conditions, Evidence, Figures, Metric

if TYPE_CHECKING:
    from torch import Tensor

    from sagan_bench.evaluation.coherence import Halves


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

    def conditions(self, evidence: Evidence) -> Conditions:
        """Return which images meet each condition of the rule."""
        from sagan_bench.evaluation import coherence

        return coherence.conditions(evidence.once(_halves))

    def parts(self, images: "Tensor") -> "Tensor | None":
        """Return the pixels of the left and of the right shape."""
        from sagan_bench.evaluation import coherence

        return coherence.shapes(images)


def _halves(evidence: Evidence) -> "Halves":
    from sagan_bench.evaluation import coherence

    return coherence.measured(evidence.images)


def _by_rule(evidence: Evidence) -> Figures:
    from sagan_bench.evaluation import coherence

    return coherence.figures(evidence.images, evidence.once(_halves))
