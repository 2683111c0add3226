"""What a run tells while it goes on, and how it is asked to stop."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from sagan_bench.core.stops import Stopped as Stopped
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
