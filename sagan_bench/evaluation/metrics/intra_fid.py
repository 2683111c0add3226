"""The Fréchet inception distance within each class."""

from collections.abc import Mapping, Sequence
from typing import Any

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._base import Evidence, Figures, Metric


@METRICS.register("intra_fid")
class IntraFID(Metric):
    """Miyato and Koyama 2018, section 5: the mean over classes of the FID within each."""

    title = "intra-class FID"
    better = "lower"
    has_floor = False
    beyond = 1_000.0
    order = 20
    cites = ("heusel2017gans", "miyato2018cgans")

    @classmethod
    def switch(cls) -> str:
        """Return its own setting, which is older than ``evaluation.metrics``."""
        return "evaluation.intra_class=true"

    @classmethod
    def wanted(cls, evaluation: Mapping[str, Any], kind: str) -> bool:
        """Return whether ``evaluation.intra_class`` asks for it."""
        return evaluation.get("intra_class") is True or super().wanted(evaluation, kind)

    @classmethod
    def check(cls, config: RunConfig, sizes: Sequence[int]) -> None:
        """Refuse fewer than two generated images of each class.  Raises `UserError`."""
        classes = config.model.classes
        if not 0 < 2 * classes <= min(sizes):
            raise UserError(
                "evaluation.intra_class needs two generated images of each class; there are "
                f"{classes} classes and {min(sizes)} images; raise evaluation.n_fake and "
                "run.eval_images, or leave it out"
            )

    def measure(self, evidence: Evidence) -> Figures:
        """Return the mean, or nothing where there are no classes."""
        from sagan_bench.evaluation.frechet import intra_fid

        if evidence.labels is None:
            return {}
        ours, theirs = evidence.labels
        return {self.name: intra_fid(evidence.features.pool, ours, evidence.real, theirs)}
