"""How far things are, on stderr: bars on a terminal, a line every few seconds elsewhere."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

SECONDS_BETWEEN_LINES = 5.0


class Bars:
    """One bar for each phase that was heard of."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=10),  # everything fits into 80 columns
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
            disable=not sys.stderr.isatty(),
        )
        self.tasks: dict[str, TaskID] = {}
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

    def advance(self, phase: str, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` of ``total`` of a phase are done, and a remark."""
        began, first = self.phase_began.setdefault(phase, (time.monotonic(), done))
        if self.bars.disable:
            self._line(phase, done, total, text, began, first)
            return
        if phase not in self.tasks:
            self.tasks[phase] = self.bars.add_task(phase, total=total, text="")
        self.bars.update(self.tasks[phase], completed=done, total=total, text=text)

    def _line(self, phase: str, done: int, total: int, text: str, began: float, first: int) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        left = (total - done) * (now - began) / max(done - first, 1)
        eta = f"  ETA {timedelta(seconds=round(left))}" if done > first else ""
        print(f"{phase} {done}/{total}{eta}  {text}".rstrip(), file=sys.stderr, flush=True)
