"""Features and pixels -> figures, by any metrics."""

import math
from collections.abc import Iterable

from sagan_bench.core.errors import UserError
from sagan_bench.core.precision import full_precision
from sagan_bench.core.registry import METRICS
from sagan_bench.core.system import is_out_of_memory
from sagan_bench.evaluation.metrics import Evidence, Metric


def default_metrics() -> list[Metric]:
    """Return the metrics of every score, as they are without settings of their own."""
    return [metric() for metric in METRICS.values() if metric.default]


def measure(evidence: Evidence, metrics: Iterable[Metric]) -> dict[str, float | None]:
    """Return the figures of metrics by key; None is one that is undefined for these images.

    Those of torch-fidelity equal its ``calculate_metrics`` with the same settings.

    Raises:
        RuntimeError: a metric failed, or gives another figure under the key of one before.
    """
    figures: dict[str, float | None] = {}
    with full_precision():
        for metric in metrics:
            for key, value in _measured(metric, evidence).items():
                if figures.setdefault(key, value) != value:
                    raise RuntimeError(
                        f"metric {metric.name}: there is another figure called {key!r}"
                    )
    return figures


def _measured(metric: Metric, evidence: Evidence) -> dict[str, float | None]:
    try:
        return {key: finite(value) for key, value in metric.measure(evidence).items()}
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        what = f"{type(error).__name__}: {error}"
        raise RuntimeError(f"metric {metric.name} failed: {what}") from error


def finite(value: float | None) -> float | None:
    """Return a value, or None if it is no number."""
    number = None if value is None else float(value)  # of numpy or torch too
    return number if number is not None and math.isfinite(number) else None
