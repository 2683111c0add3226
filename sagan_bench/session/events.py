"""What a run tells while it goes on, and how it is asked to stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from sagan_bench.core.progress import OnProgress
from sagan_bench.core.stops import Stopped as Stopped
from sagan_bench.evaluation.foreseeing import ScoringAhead as ScoringAhead
from sagan_bench.runs.records import Score
from sagan_bench.training.loop import Diverged, Step


class Progress(NamedTuple):
    """How far a phase has come that has no steps of its own; ``total`` is 0 if nobody knows it."""

    phase: Literal["data", "score", "probe", "program"]
    done: int
    total: int


class Scored(NamedTuple):
    """One sample set has been scored."""

    score: Score


class SampleGrid(NamedTuple):
    """A grid of samples can be looked at."""

    path: Path


Event = ScoringAhead | Progress | Step | Diverged | Scored | SampleGrid
Watch = Callable[[Event], None]
"""Sees every event of a run."""
Stop = Callable[[], str | None]
"""Returns why the run should stop now, or None."""


def followed(
    phase: Literal["data", "score", "probe"], watch: Watch, stop: Stop, path: Path | None = None
) -> OnProgress:
    """Return what shows the progress of a phase, and raises `Stopped` where that is wanted."""

    def progress(done: int, total: int) -> None:
        watch(Progress(phase, done, total))
        if reason := stop():
            raise Stopped(reason, path)

    return progress
