"""The kernel inception distance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric

if TYPE_CHECKING:
    from sagan_bench.evaluation.protocol import Protocol


@METRICS.register("kid_mean")
class KID(Metric):
    """Binkowski et al. 2018: the MMD of features by a cubic kernel, the mean over subsets."""

    title = "KID"
    better = "lower"
    spread = "kid_std"
    default = True
    beyond = 10.0
    blind_to = "whether distant parts of an image agree"
    glossary = (
        "KID",
        "Kernel inception distance: likewise, without bias by the number of images.",
    )
    order = 30
    cites = ("binkowski2018demystifying",)

    @classmethod
    def doubts(cls, protocol: "Protocol") -> Iterator[str]:
        """Yield whether a subset is all of a set."""
        if protocol.kid_subset_size == min(protocol.n_real, protocol.n_fake):
            yield f"every subset is a whole set: {protocol.label('kid_std')} is too small"

    def measure(self, evidence: Evidence) -> Figures:
        """Return ``kid_mean`` and ``kid_std``."""
        from torch_fidelity.metric_kid import kid_features_to_metric

        figures = kid_features_to_metric(
            evidence.features.pool,
            evidence.real,
            kid_subsets=evidence.protocol.kid_subsets,
            kid_subset_size=evidence.protocol.kid_subset_size,
            verbose=False,
        )
        theirs = "kernel_inception_distance"
        return {"kid_mean": figures[f"{theirs}_mean"], "kid_std": figures[f"{theirs}_std"]}
