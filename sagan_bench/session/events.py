"""What a run tells while it goes on, and how it is asked to stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from sagan_bench.runs.records import Score
from sagan_bench.training.loop import Diverged, Step


class Progress(NamedTuple):
    """How far a phase outside training has come."""

    phase: Literal["data", "score"]
    done: int
    total: int


class Scored(NamedTuple):
    """One sample set has been scored."""

    score: Score


Event = Progress | Step | Diverged | Scored
Watch = Callable[[Event], None]
"""Sees every event of a run."""
Stop = Callable[[], str | None]
"""Returns why the run should stop now, or None."""


class Stopped(Exception):
    """The run was asked to stop; what it had done is in its directory."""

    def __init__(self, reason: str, path: Path | None) -> None:
        super().__init__(reason)
        self.path = path
