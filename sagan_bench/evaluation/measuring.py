"""Features and pixels -> figures, by any metrics."""

import math
from collections.abc import Iterable

from sagan_bench.core.precision import full_precision
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import Evidence, Metric


def default_metrics() -> list[Metric]:
    """Return the metrics of every score, as they are without settings of their own."""
    return [metric() for metric in METRICS.values() if metric.default]


def measure(evidence: Evidence, metrics: Iterable[Metric]) -> dict[str, float | None]:
    """Return the figures of metrics by key; None is one that is undefined for these images.

    Those of torch-fidelity equal its ``calculate_metrics`` with the same settings.
    """
    figures: dict[str, float | None] = {}
    with full_precision():
        for metric in metrics:
            figures |= metric.measure(evidence)
    return {key: finite(value) for key, value in figures.items()}


def finite(value: float | None) -> float | None:
    """Return a value, or None if it is no number."""
    return value if value is not None and math.isfinite(value) else None
