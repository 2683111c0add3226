"""What can be said of runs, in words beside the figures, as reports keep it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sagan_bench.analysis.budget import BudgetCurve
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.limits import Doubt
from sagan_bench.analysis.paper import PaperLine
from sagan_bench.analysis.probes import Probes
from sagan_bench.analysis.question import Ledger
from sagan_bench.analysis.spread import Spread
from sagan_bench.analysis.variants import Variant
from sagan_bench.analysis.verdicts import Comparison, Interval
from sagan_bench.config.diff import Difference
from sagan_bench.report.courses import Course

YOUNG = ("where", "courses", "spreads", "correlations", "rule", "ledger", "probes")
"""Fields of findings that are younger than reports."""


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
class Correlation:
    """Of the runs of two variants at the same seed; its 95 % interval is Fisher's."""

    variant: str
    baseline: str
    r: float
    interval: Interval


@dataclass(frozen=True)
class Rule:
    """What verdicts follow from, beside values and margin.

    Attributes:
        comparable: whether anything may be concluded.
        looks: how often results were looked at before more seeds were added.
        missing: runs still to come.
        lost: what counts as diverged though it finished.
        paired: whether runs of the same seed are compared.
        pairs: how many share the error.
        horizon: of a study that grows, the seeds a group that it was begun for; else null.
        most: likewise, the seeds a group at which it ends.
        futility: likewise, whether hopeless pairs stop.
        order: likewise, the seeds in the order in which they are taken.
    """

    comparable: bool
    looks: int
    missing: int
    lost: str | None = None
    paired: bool = False
    pairs: int = 0
    horizon: int | None = None
    most: int | None = None
    futility: bool = True
    order: tuple[int, ...] = ()

    @property
    def design(self) -> Design | None:
        """How the study grows."""
        if self.horizon is None or self.most is None:
            return None
        return Design(self.pairs, self.horizon, self.most, self.futility, self.paired)


@dataclass(frozen=True)
class Probed(Probes[str]):
    """What probes say together of finished weights, with a sentence for each variant."""

    sentences: tuple[str, ...] = ()


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
    spreads: tuple[Spread, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    rule: Rule | None = None
    """What else verdicts follow from; older reports lack it."""
    ledger: Ledger | None = None
    """Of a study beside which there are others of the same data."""
    probes: Probed | None = None
    """How finished weights depend on their maps, where runs were probed."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain data; what is younger than reports is left out while empty."""
        return {key: value for key, value in asdict(self).items() if key not in YOUNG or value}
