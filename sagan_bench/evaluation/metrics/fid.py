"""The Fréchet inception distance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric

if TYPE_CHECKING:
    from sagan_bench.evaluation.protocol import Protocol


@METRICS.register("fid")
class FID(Metric):
    """Heusel et al. 2017: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of features' moments."""

    title = "FID"
    better = "lower"
    default = True
    beyond = 1_000.0
    blind_to = "whether distant parts of an image agree"
    glossary = (
        "FID",
        "Fréchet inception distance between features of generated and of real images; lower is "
        "better. It depends on the extractor and on the number of images, so only figures of one "
        "protocol compare.",
    )
    order = 10
    cites = ("heusel2017gans",)
    leads = 2
    column = "fid"

    @classmethod
    def doubts(cls, protocol: "Protocol") -> Iterator[str]:
        """Yield for each set whether it is smaller than the features are wide."""
        for kind, n in (("real", protocol.n_real), ("generated", protocol.n_fake)):
            if n <= protocol.dimensions:
                yield (
                    f"n<d: {protocol.label(cls.name)} from {n} {kind} images has "
                    f"{protocol.dimensions} dimensions; its covariance is rank-deficient and its "
                    "bias large"
                )

    def measure(self, evidence: Evidence) -> Figures:
        """Return the distance."""
        from sagan_bench.evaluation.frechet import frechet

        return {self.name: frechet(evidence.features.pool, evidence.real)}
