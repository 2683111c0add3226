"""How many images are twins."""

from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._twins import TwinMetric


@METRICS.register("twin_rate")
class TwinRate(TwinMetric):
    """The share of images that meet all conditions of the rule."""

    glossary = (
        "twin_rate",
        "Share of generated images that obey the rule of the data set twins: two shapes "
        "of one hue and size, left and right. Distant parts must agree, and no network measures "
        "it.",
    )
    order = 70
    leads = 1
    column = "twin_rate"
