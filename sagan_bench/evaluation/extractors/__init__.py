"""The extractors of features, one class a file: their layers, their weights, their networks."""

from sagan_bench.config.schema import RunSection
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors._base import Extractor

__all__ = ["Extractor", "best"]


def best(run: RunSection) -> str:
    """Return what ``auto`` stands for: the most preferred whose weights are at hand.

    Raises:
        UserError: a file of weights that the run names is not there.
    """
    ranked = sorted(EXTRACTORS.values(), key=lambda extractor: -extractor.preference)
    return next(
        extractor.name
        for extractor in ranked
        if extractor.preference and extractor.at_hand(extractor.file_of(run))
    )
