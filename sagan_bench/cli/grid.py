"""How far the runs of a study are: a table of variants and seeds on a terminal."""

import time
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

    def follow(self, run: "GridPoint", what: "What | None") -> None:
        """Take notice of what happened; a study that grows begins runs that were not counted."""
        if what is None and run.id not in self.counted:
            self.counted.add(run.id)
            self.to_run, self.left = self.to_run + 1, self.left + 1
        super().follow(run, what)

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
        elapsed = timedelta(seconds=round(time.monotonic() - self.began))
        table = Table(
            title=_safe(f"{self.study.name}: {self.label} by variant and seed"),
            caption=f"{self.to_run - self.left}/{self.to_run} cells, {elapsed} elapsed",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("variant", no_wrap=True)
        names = self.study.all_variants
        seeds = [
            seed for seed in self.study.order
            if self.study.design is None or any(self.texts.get(f"{v}-s{seed}") for v in names)
        ]  # fmt: skip
        for seed in seeds:
            table.add_column(str(seed), justify="right", no_wrap=True)
        for variant in names:
            texts = (self.texts.get(f"{variant}-s{seed}", "") for seed in seeds)
            table.add_row(_safe(variant), *map(_safe, texts))
        return table


def _safe(text: str) -> str:
    return escape(shown(text))
