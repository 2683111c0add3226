"""How far the runs of a study are: a table on a terminal, by seed or, of many, by counts."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from sagan_bench.cli.console import shown
from sagan_bench.cli.progress import RunsView
from sagan_bench.cli.tables import number

if TYPE_CHECKING:
    from sagan_bench.execution.engine import Ended
    from sagan_bench.experiments.driver import What
    from sagan_bench.experiments.grid import GridPoint, Plan

MOST_SEEDS, MOST_CELLS = 12, 100
"""That are drawn each; of more, a variant's are counted."""
QUEUED, RUNNING = "queued", "running"
OVER = {
    "finished": "done", "failed": "failed", "diverged": "diverged", "interrupted": "interrupted",
}  # fmt: skip
"""The status of a run that has ended -> what it is counted as."""
STATES = ("done", RUNNING, QUEUED, "failed", "diverged", "interrupted")


class GridView(RunsView["GridPoint"]):
    """How far every run of a plan is."""

    def __init__(self, planned: "Plan") -> None:
        self.study = planned.manifest.study
        is_ours = self.study.command is None
        extractor = planned.points[0].ours.evaluation.extractor if is_ours else None
        super().__init__(self.study.measure.metric, extractor)
        self.texts = {point.id: self._of_record(point) for point in planned.points}
        self.to_run = self.left = len(planned.missing)
        self.began = time.monotonic()
        self.counted = {point.id for point in planned.missing}
        self.states: dict[str, str] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """(variant, state) -> runs."""
        for point in planned.points:
            state = QUEUED if point.id in self.counted else OVER.get(str(point.status))
            if state:
                self._count(point, state)

    def follow(self, run: "GridPoint", what: "What | None") -> None:
        """Take notice of what happened; a study that grows begins runs that were not counted."""
        from sagan_bench.execution.engine import Ended

        if what is None and run.id not in self.counted:
            self.counted.add(run.id)
            self.to_run, self.left = self.to_run + 1, self.left + 1
        super().follow(run, what)
        waits = self.texts[run.id].startswith(QUEUED)
        under_way = QUEUED if waits else RUNNING
        self._count(run, OVER[what.status] if isinstance(what, Ended) else under_way)

    def _count(self, run: "GridPoint", state: str) -> None:
        """Count a run in a state, and no longer in that of before."""
        if before := self.states.get(run.id):
            self.counts[run.variant, before] -= 1
        self.states[run.id] = state
        self.counts[run.variant, state] += 1

    def ended(self, run: "GridPoint", what: "Ended") -> str:
        """Return a line where no table is drawn, and of each failure."""
        self.left -= 1
        if self.on_terminal and what.status != "failed":
            return ""
        finished = what.status == "finished"
        text = f"{self.label} {self.texts[run.id]}" if finished else what.reason
        more = "" if text == what.status else f", {text}"
        return f"{self.to_run - self.left}/{self.to_run} {run.id}: {what.status}{more}"

    def heading(self) -> str:
        """Return how many are left."""
        return f"{self.left} of {self.to_run} left"

    def _of_record(self, point: "GridPoint") -> str:
        if point.status != "finished" or point.record is None:
            return "" if point.status in (None, "running") else str(point.status)
        finals = (score for score in point.record.scores if score.final and score.weights == "ema")
        values = (score.metrics[self.metric] for score in finals if self.metric in score.metrics)
        return next(map(number, values), "done")

    def drawn(self) -> RenderableType:
        """Return the table."""
        names = self.study.all_variants
        seeds = [
            seed for seed in self.study.order
            if self.study.design is None or any(self.texts.get(f"{v}-s{seed}") for v in names)
        ]  # fmt: skip
        if len(seeds) > MOST_SEEDS or len(seeds) * len(names) > MOST_CELLS:
            rows = {name: [str(self.counts[name, s] or "") for s in STATES] for name in names}
            return self._table("cells by variant", STATES, rows)
        rows = {name: [self.texts.get(f"{name}-s{seed}", "") for seed in seeds] for name in names}
        return self._table(f"{self.label} by variant and seed", [*map(str, seeds)], rows)

    def _table(self, of: str, header: Sequence[str], rows: dict[str, list[str]]) -> Table:
        elapsed = timedelta(seconds=round(time.monotonic() - self.began))
        table = Table(
            title=_safe(f"{self.study.name}: {of}"),
            caption=f"{self.to_run - self.left}/{self.to_run} cells, {elapsed} elapsed",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("variant", no_wrap=True)
        for name in header:
            table.add_column(name, justify="right", no_wrap=True)
        for variant, texts in rows.items():
            table.add_row(_safe(variant), *map(_safe, texts))
        return table


def _safe(text: str) -> str:
    return escape(shown(text))
