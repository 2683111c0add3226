"""The metrics, one class a file: what each is called, which way is better, how it is measured."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics._base import RUNS, Evidence, Metric

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "RUNS", "Evidence", "Metric", "chosen", "extractor_of", "leading", "of_key", "ordered",
    "parts_of", "shown",
]  # fmt: skip


def shown() -> dict[str, type[Metric]]:
    """Return all metrics by name, in the order in which they are shown."""
    return dict(sorted(METRICS.items(), key=lambda item: item[1].order))


def ordered(keys: Iterable[str], *, theirs: bool) -> list[str]:
    """Return the metrics among keys of scores in the order in which they are shown, ours first.

    Args:
        keys: of scores.
        theirs: another program gave them, so that every key is a metric.
    """
    known = list(keys)
    others = [key for key in known if key not in METRICS] if theirs else []
    return [*(name for name in shown() if name in known), *others]


def leading() -> list[str]:
    """Return the metrics that are shown beside the primary one, that of most weight first."""
    ranks = {name: metric.leads for name, metric in METRICS.items() if metric.leads is not None}
    return sorted(ranks, key=lambda name: ranks[name])


def of_key(key: str) -> type[Metric] | None:
    """Return the metric that a key of scores belongs to; None if it is no metric's."""
    if key in METRICS:
        return METRICS[key]
    return next((metric for metric in METRICS.values() if metric.spread == key), None)


def extractor_of(metric: type[Metric], main: str | None) -> str | None:
    """Return the extractor that a metric needs, where a run has ``main``; None: it needs none."""
    return main if metric.extractor == RUNS else metric.extractor


def chosen(config: RunConfig, kind: str) -> dict[str | None, list[Metric]]:
    """Return the metrics of a run's scores on a kind of data by the extractor that they need.

    The run's own extractor comes first; under None are those that need none.
    """
    evaluation = config.evaluation
    given = evaluation.model_dump()
    groups: dict[str | None, list[Metric]] = {evaluation.extractor: []}
    for metric in METRICS.values():
        if metric.wanted(given, kind):
            group = groups.setdefault(extractor_of(metric, evaluation.extractor), [])
            group.append(metric(evaluation.options.get(metric.name)))
    return groups


def parts_of(images: "Tensor", config: RunConfig, kind: str) -> "Tensor | None":
    """Return two parts of each image that must agree, if a rule of a run's data asks for that.

    Args:
        images: uint8 (N, 3, S, S).
        config: of the run.
        kind: of its data.

    Returns:
        (N, 2, S, S) bool; see `Metric.parts`.
    """
    known = (metric.parts(images) for metric in chosen(config, kind).get(None, []))
    return next((parts for parts in known if parts is not None), None)
