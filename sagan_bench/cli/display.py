"""What a person sees while and after a run: bars, lines, tables."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from sagan_bench.cell import Progress as Phase
from sagan_bench.cell import Scored
from sagan_bench.records import Record, Score
from sagan_bench.training.loop import Diverged, Step

SECONDS_BETWEEN_LINES = 5.0
PIPED_COLUMNS = 160
"""Width of a table that is not printed on a terminal."""

PHASES = {"data": "data", "train": "training", "score": "scoring"}

Event = Phase | Step | Diverged | Scored


class Display:
    """Follows a run on stderr: bars on a terminal, a line every few seconds elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=10),  # everything fits into 80 columns
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.tasks: dict[str, TaskID] = {}
        self.row: Mapping[str, float] = {}
        self.phase_began: dict[str, tuple[float, int]] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Step):
            self.row = event.row or self.row
            self._advance("train", event.step, self.steps, _training_text(self.row))
        elif isinstance(event, Phase):
            self._advance(event.phase, event.done, event.total, "")

    def _advance(self, phase: str, done: int, total: int, text: str) -> None:
        began, first = self.phase_began.setdefault(phase, (time.monotonic(), done))
        if self.bars.disable:
            self._line(phase, done, total, text, began, first)
            return
        if phase not in self.tasks:
            self.tasks[phase] = self.bars.add_task(PHASES[phase], total=total, text="")
        self.bars.update(self.tasks[phase], completed=done, total=total, text=text)

    def _line(self, phase: str, done: int, total: int, text: str, began: float, first: int) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        left = (total - done) * (now - began) / max(done - first, 1)
        eta = f"  ETA {timedelta(seconds=round(left))}" if done > first else ""
        print(f"{PHASES[phase]} {done}/{total}{eta}  {text}".rstrip(), file=sys.stderr, flush=True)


def _training_text(row: Mapping[str, float]) -> str:
    if not row:
        return ""
    gammas = [f"{value:.2f}" for name, value in row.items() if name.startswith("gamma.")]
    text = f"{row['images_per_sec']:.0f} images/s D {row['loss_d']:.2f} G {row['loss_g']:.2f}"
    return text + (f" γ {' '.join(gammas)}" if gammas else "")


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to stdout; columns after the first are numbers, to the right."""
    table = Table(title=escape(title) if title else None, title_justify="left")
    for index, name in enumerate(header):
        first = index == 0
        justify: Literal["left", "right"] = "left" if first else "right"
        table.add_column(escape(name), justify=justify, no_wrap=first, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table)


def print_record(record: Record) -> None:
    """Print a run's scores beside the real-against-real floor, its cost and its warnings."""
    seconds = timedelta(seconds=round(record.cost.train_sec or 0))
    state = f"{record.status}, step {record.step} of {record.steps}"
    if record.reason:
        state += f" ({record.reason})"
    print(f"{record.run}: {state}; trained {seconds}")
    final = [score for score in record.scores if score.final]
    step = max((score.step for score in final), default=None)
    latest = [score for score in final if score.step == step] or list(record.scores[-1:])
    for scores in _comparable(latest):
        columns = [f"{score.weights} z{score.sampling_seed}" for score in scores]
        header = (f"step {scores[0].step}, n = {scores[0].n_fake}", *columns, "real v real")
        print_table("", header, _score_rows(scores))
    for warning in dict.fromkeys(text for score in latest for text in score.warnings):
        print(f"note: {warning}")


def _comparable(scores: Sequence[Score]) -> list[list[Score]]:
    """Group scores whose protocols differ in the weights or the sampling seed at most."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        varying = ("weights", "ema_decay", "sampling_seed")
        shared = {key: value for key, value in score.protocol.items() if key not in varying}
        groups.setdefault(str((score.step, sorted(shared.items()))), []).append(score)
    return list(groups.values())


def _score_rows(scores: Sequence[Score]) -> Iterable[Sequence[str]]:
    from sagan_bench.evaluation.protocol import Protocol

    protocol = Protocol.model_validate(scores[0].protocol)
    for metric in scores[0].metrics:
        values = [number(score.metrics.get(metric)) for score in scores]
        yield protocol.label(metric), *values, number(scores[0].floor.get(metric))


def number(value: Any) -> str:
    """Return four significant digits, or a dash where there is none."""
    if value is None or value != value:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
