"""sagan_bench: does self-attention help this GAN, where, and how sure are we?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from sagan_bench.api import TrainedRun, compare, frame, load, train
    from sagan_bench.report.verdict import Verdict

__version__ = "0.1.0"
__all__ = ["TrainedRun", "__version__", "compare", "frame", "load", "train", "verdict"]


def __getattr__(name: str) -> Any:
    """Return a name of `sagan_bench.api`, which needs torch, once it is asked for."""
    if name in __all__:
        return getattr(import_module("sagan_bench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def verdict(
    frame: "pd.DataFrame",
    *,
    baseline: str,
    metric: str | None = None,
    better: Literal["lower", "higher"] | None = None,
    min_effect: float | str | None = None,
    looks: int = 0,
) -> "Verdict":
    """Return what can be claimed of scores: one row a run, its variant, seed and figures.

    It is a verdict where metric and smallest difference that matters are given, and were so before
    the runs; else the runs are described (docs/own.md).

    Args:
        frame: with columns ``variant``, ``seed`` and metrics; a missing value is a lost run.
        baseline: the variant that all others are held to.
        metric: the column that decides; by default the only one.
        better: which of its values are; needed where the metric is not one of ours.
        min_effect: smallest difference that matters, in units of the metric, or as in ``"5%"``.
        looks: how often results were looked at before more runs were added.

    Raises:
        sagan_bench.core.errors.UserError: what is wrong, in which row and column.
    """
    from sagan_bench.report.verdict import of_frame

    return of_frame(
        frame, baseline=baseline, metric=metric, better=better, min_effect=min_effect, looks=looks
    )
