"""How far things are, on stderr: drawn on a terminal, a line now and then elsewhere."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from sagan_bench.cli.console import say, shown
from sagan_bench.cli.tables import duration, number
from sagan_bench.core.stops import Stopped
from sagan_bench.evaluation.protocol import label, label_in

if TYPE_CHECKING:
    from sagan_bench.evaluation.foreseeing import ScoringAhead
    from sagan_bench.execution.engine import Ended, Job
    from sagan_bench.experiments.driver import What
    from sagan_bench.experiments.tuning.trials import TrialRun
    from sagan_bench.runs.records import Score
    from sagan_bench.session.events import Event, Stop

J = TypeVar("J", bound="Job")
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LINES_OF_RUNS = 30.0
MOST_NAMED = 12
"""Runs under way in a line."""
_IN_STEPS = re.compile(r"%|^step ")
"""What is in a text that says how far a run is."""
PHASES = {"data": "data", "score": "scoring", "probe": "probing", "program": "training"}


class View:
    """How far a thing is: a bar for each of its phases that was heard of.

    Args:
        steps: of training, if it trains.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self.row: Mapping[str, float] = {}
        self.step = 0
        """The last one that was seen."""
        self.scoring = ""
        """What is scored after the last step, in words."""
        self.then = ""
        """What follows the phase under way."""
        self.has_grid = False
        self.on_terminal = sys.stderr.isatty()
        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=10),  # everything fits into 80 columns
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self.live: Live | None = None
        self.tasks: dict[str, TaskID] = {}
        self.phase_began: dict[str, tuple[float, int]] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self.on_terminal:
            self.live = Live(get_renderable=self.drawn, console=self.console)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def drawn(self) -> RenderableType:
        """Return what a terminal shows: the bars, and below what follows the phase under way."""
        bars = self.bars.get_renderable()
        then = Text(self.then, no_wrap=True, overflow="ellipsis")
        return Group(bars, then) if self.then else bars

    def is_time_for_a_line(self, seconds: float) -> bool:
        """Return whether nothing is drawn, and the last line was so long ago."""
        now = time.monotonic()
        if self.on_terminal or now - self.last_line < seconds:
            return False
        self.last_line = now
        return True

    def advance(self, phase: str, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` of ``total`` of a phase are done, and a remark."""
        began, first = self.phase_began.setdefault(phase, (time.monotonic(), done))
        if self.on_terminal:
            if phase not in self.tasks:
                self.tasks[phase] = self.bars.add_task(phase, total=total, text="")
            self.bars.update(self.tasks[phase], completed=done, total=total, text=text)
        elif self.is_time_for_a_line(SECONDS_BETWEEN_LINES):
            left = (total - done) * (time.monotonic() - began) / max(done - first, 1)
            eta = f"  ETA {timedelta(seconds=round(left))}" if done > first else ""
            line = "  ".join(part for part in (text, self.then) if part)
            far = f"{phase} {done:,}/{total:,}{eta}  {line}".rstrip()
            print(far, file=sys.stderr, flush=True)

    def counter(self, phase: str, stop: "Stop", unit: int = 1) -> Callable[[int, int], None]:
        """Return what shows how far a phase is, and raises `Stopped` when asked to."""

        def progress(done: int, total: int) -> None:
            self.advance(phase, done // unit, total // unit)
            if reason := stop():
                raise Stopped(reason, None)

        return progress

    def watch(self, event: "Event") -> None:
        """Show an event of a run."""
        from sagan_bench.session.events import Progress, SampleGrid, ScoringAhead
        from sagan_bench.training.loop import Step

        if isinstance(event, ScoringAhead):
            say(f"scoring: {ahead(event)}", error=True)
            self.scoring = _briefly(event)
        elif isinstance(event, Step):
            self.step, self.row = event.step, event.row or self.row
            self.then = self._after("training")
            self.advance("training", event.step, self.steps, _training_text(self.row))
        elif isinstance(event, SampleGrid) and not self.has_grid:
            self.has_grid = True
            say(f"samples: {event.path}", error=True)
        elif isinstance(event, Progress):
            phase = PHASES[event.phase]
            self.then = self._after(phase)
            self.advance(phase, event.done, event.total)

    def _after(self, phase: str) -> str:
        """Return what follows a phase of a run; empty if nothing does."""
        left = f"{self.steps - self.step:,} steps" if self.step < self.steps else ""
        follows = {
            "data": left and f"training {left}",
            "scoring": f"{left} more" if left and self.step else "",  # scored on the way
            "training": self.scoring,
            "probing": "",
        }[phase]
        return follows and f"then {follows}"


def ahead(scoring: "ScoringAhead") -> str:
    """Return in words what is to be scored, and what that takes as far as it is known."""
    counts = {
        "generated": scoring.generated,
        "generated on the way": scoring.on_the_way,
        "real": scoring.real,
    }
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    if not parts:
        return "none"
    at_the_end = "" if scoring.generated else "; none at the end"
    once = " (real ones once for all runs of these images)" if scoring.real else ""
    by = ", ".join(scoring.extractors)
    return f"{' + '.join(parts)} images by {by}{once}{at_the_end}, {_time(scoring)}"


def _briefly(scoring: "ScoringAhead") -> str:
    """Return what is scored at the end: as many images as its bar has, where that is known.

    How many real ones and how much of the time looks on the way take is not.
    """
    if not scoring.generated:
        return ""
    if scoring.on_the_way:
        return "the final scoring"
    images = f"scoring {scoring.images:,} images"
    return images if scoring.seconds is None else f"{images}, {_time(scoring)}"


def _time(scoring: "ScoringAhead") -> str:
    if scoring.seconds is None:
        return "in a time not known yet on this machine"
    return f"{'at least' if scoring.at_least else 'about'} {duration(scoring.seconds)}"


def _training_text(row: Mapping[str, float]) -> str:
    if not row:
        return ""
    gammas = [f"{value:.2f}" for name, value in row.items() if name.startswith("gamma.")]
    text = f"{row['images_per_sec']:.0f} images/s D {row['loss_d']:.2f} G {row['loss_g']:.2f}"
    return text + (f" γ {' '.join(gammas)}" if gammas else "")


class RunsView(View, Generic[J]):
    """How far many runs are: a line for each that ends, and now and then the rest.

    Args:
        metric: of which a run's final score is shown.
        extractor: of the runs, by which the metric is called; None where another program makes
            them, so that only their scores tell.
    """

    def __init__(self, metric: str, extractor: str | None) -> None:
        super().__init__()
        self.metric = metric
        self.label = metric if extractor is None else label(metric, extractor)
        self.texts: dict[str, str] = {}
        """Run -> how far it is."""
        self.scores: dict[str, str] = {}

    def ended(self, run: J, what: "Ended") -> str:
        """Return the line that says how a run ended; none is printed if it is empty."""
        raise NotImplementedError

    def heading(self) -> str:
        """Return what stands before the runs under way."""
        raise NotImplementedError

    def follow(self, run: J, what: "What | None") -> None:
        """Take notice of what happened in a run; None: it begins."""
        from sagan_bench.execution.engine import Ended
        from sagan_bench.session.events import Scored

        if text := _text_of(run, what):
            self.texts[run.id] = text
        elif isinstance(what, Scored):
            if what.score.final and what.score.weights == "ema":
                self._scored(run, what.score)
        elif isinstance(what, Ended):
            finished = what.status == "finished"
            self.texts[run.id] = self.scores.get(run.id, "done") if finished else what.status
            if line := self.ended(run, what):
                self.console.print(shown(line), markup=False, emoji=False, soft_wrap=True)
        if self.is_time_for_a_line(SECONDS_BETWEEN_LINES_OF_RUNS):
            self._say_under_way()

    def _say_under_way(self) -> None:
        texts = {name: text for name, text in self.texts.items() if _IN_STEPS.search(text)}
        under_way = [f"{name} {text}" for name, text in texts.items()]
        if more := under_way[MOST_NAMED:]:
            under_way[MOST_NAMED:] = [f"and {len(more):,} more"]
        if under_way:
            say(f"{self.heading()}: {', '.join(under_way)}", error=True)

    def _scored(self, run: J, score: "Score") -> None:
        if self.metric in score.metrics:  # each extractor has a score of its own
            self.label = label_in(self.metric, score.protocol)
            self.scores[run.id] = number(score.metrics[self.metric])


def _text_of(run: "Job", what: "What | None") -> str | None:
    """Return how far a run is by what happened in it; None if that does not say it."""
    from sagan_bench.config.schema import RunConfig
    from sagan_bench.execution.engine import Placed
    from sagan_bench.session.events import Progress
    from sagan_bench.training.loop import Diverged, Step

    if what is None:
        return "starting"
    if isinstance(what, Placed):
        return f"queued: {what.waits_for}" if what.waits_for else "on a node"
    if isinstance(what, Step) and isinstance(run.config, RunConfig):
        return f"{what.step / run.config.run.steps:.0%}"
    if isinstance(what, Progress) and what.phase != "data":
        return _how_far(*what)
    return "diverged" if isinstance(what, Diverged) else None


def _how_far(phase: str, done: int, total: int) -> str:
    if phase == "program" and not total:
        return f"step {done:,}"
    what = f"{PHASES[phase]} " if phase in ("score", "probe") else ""
    return f"{what}{done / max(total, 1):.0%}"


class TrialsView(RunsView["TrialRun"]):
    """How far the runs of a tuning are: lines, on a terminal too.

    Args:
        metric: the first objective.
        extractor: of the runs.
        trials: of each search, in all.
    """

    def __init__(self, metric: str, extractor: str, trials: int) -> None:
        super().__init__(metric, extractor)
        self.on_terminal = False
        self.trials = trials

    def ended(self, run: "TrialRun", what: "Ended") -> str:
        """Return which run has ended, and its value or why it has none."""
        value = f"{self.label} {self.scores.get(run.id, '—')}"
        part = f"{run.number + 1}/{self.trials}" if run.of_trial else "fresh seed"
        return f"{run.id} ({part}): {value if what.status == 'finished' else what.reason}"

    def heading(self) -> str:
        """Return what the rest is."""
        return "under way"
