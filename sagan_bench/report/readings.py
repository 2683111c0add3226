"""What can be said of runs, in words beside the figures, as reports keep it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sagan_bench.analysis.budget import BudgetCurve
from sagan_bench.analysis.limits import Doubt
from sagan_bench.analysis.paper import PaperLine
from sagan_bench.analysis.variants import Variant
from sagan_bench.analysis.verdicts import Comparison
from sagan_bench.config.diff import Difference
from sagan_bench.report.courses import Course


@dataclass(frozen=True)
class Reading:
    """Comparisons by one measure, with a sentence for each; or why there are none."""

    title: str
    metric: str
    label: str
    better: Literal["lower", "higher"]
    min_effect: float
    """Smallest difference that matters; where it differs from baseline to baseline, the least."""
    comparisons: tuple[Comparison[str], ...] = ()
    sentences: tuple[str, ...] = ()
    absent: str | None = None
    kind: str = ""
    """Of `sagan_bench.analysis.comparison.Kind`; empty in older reports."""


@dataclass(frozen=True)
class Findings:
    """Everything that can be said of the runs of a question; figures raw, words beside them."""

    name: str
    question: str
    headline: tuple[str, ...]
    budget: str
    declared: bool
    protocol: dict[str, Any]
    variants: tuple[Variant, ...]
    primary: Reading
    secondary: tuple[Reading, ...]
    paper: tuple[PaperLine, ...]
    differences: dict[str, list[Difference]]
    """Variant -> (key, in its baseline, in the variant): all that changes results."""
    runs: tuple[str, ...]
    unfinished: tuple[str, ...]
    by_budget: tuple[BudgetCurve, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    unplanned: tuple[str, ...] = ()
    """Runs that the study does not name, left out."""
    matters: str = ""
    """The smallest difference that matters, as it was declared: in units, or as a share."""
    where: str = ""
    """Where the user declared it, if no study shows that it was before the runs."""

    courses: tuple[Course, ...] = ()
    """Of a study that grows until it is conclusive."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain data; what is younger than reports is left out while empty."""
        young = ("where", "courses")
        return {key: value for key, value in asdict(self).items() if key not in young or value}
