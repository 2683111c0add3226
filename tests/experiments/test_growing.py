"""Which runs a growing study begins, as slots fall free."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.sequential import Course, courses
from sagan_bench.analysis.verdicts import Lost, Metric, Runs, Verdict
from sagan_bench.execution.engine import Ended
from sagan_bench.experiments.grid import GridPoint
from sagan_bench.experiments.growing import Growing
from sagan_bench.runs.command import Command
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Status

PAIRS = [("clear", "plain"), ("same", "plain")]
MEANS = {"plain": 10.0, "clear": 5.0, "same": 10.0}
SEEDS = range(8)
DESIGN = Design(len(PAIRS), horizon=8, most=8, futility=False)


def point(variant: str, seed: int) -> GridPoint:
    program = Program(source="x", values={}, better={"fid": "lower"})
    name = f"{variant}-s{seed}"
    return GridPoint(name, Command(program, variant, seed), Path(name), "", None, None)


class Study:
    """A growing study without an engine: what has ended, and what is asked for."""

    def __init__(
        self, lost: Sequence[tuple[str, int]] = (), only: Collection[str] = tuple(MEANS)
    ) -> None:
        self.outcomes: dict[str, dict[int, float | Lost]] = {name: {} for name in MEANS}
        self.lost = lost
        points = [point(name, seed) for seed in SEEDS for name in MEANS if name in only]
        self.work = Growing(points, self.courses, DESIGN, SEEDS)

    def courses(self) -> tuple[Course, ...]:
        known: dict[str, Runs] = dict(self.outcomes)
        return courses(known, PAIRS, Metric("fid", "lower", 0.5), DESIGN, SEEDS)

    def begin(self) -> list[GridPoint]:
        """Return all that may begin now."""
        return list(iter(self.work.next, None))

    def end(self, run: GridPoint) -> None:
        noise = np.random.default_rng([run.seed, len(run.variant)]).standard_normal()
        value: float | Lost = MEANS[run.variant] + noise
        if (run.variant, run.seed) in self.lost:
            value = Lost.FAILED
        self.outcomes[run.variant][run.seed] = value
        self.work.take(run, Ended(Status.FINISHED, None))


def test_the_next_look_begins_while_the_last_runs_of_a_look_are_under_way() -> None:
    study = Study()
    ids = [run.id for run in study.begin()]
    assert ids[:3] == ["plain-s0", "clear-s0", "same-s0"]
    assert len(ids) == 3 * 8  # the first look, and the one ahead
    assert {int(name[-1]) for name in ids[:15]} == set(range(5))


def test_a_decided_pair_begins_no_more_and_its_baseline_goes_on() -> None:
    study = Study()
    first = [study.work.next() for _ in range(15)]
    for run in first:
        assert run is not None
        study.end(run)
    (clear, same) = study.courses()
    assert clear.decisive
    assert clear.decisive.comparison.verdict is Verdict.BETTER_AS_MATTERS
    assert same.is_open
    assert {run.id[:-1] for run in study.begin()} == {"plain-s", "same-s"}


def test_for_variants_that_are_not_run_the_baseline_is_not_run_ahead() -> None:
    study = Study(only=("plain", "clear"))
    first = [study.work.next() for _ in range(10)]
    for run in first:
        assert run is not None
        study.end(run)
    assert [course.is_open for course in study.courses()] == [False, True]
    assert study.begin() == []


def test_nothing_beyond_a_look_that_waits_for_what_failed_begins() -> None:
    study = Study(lost=[("same", 4), ("clear", 4)])
    first = [study.work.next() for _ in range(15)]
    for run in first:
        assert run is not None
        study.end(run)
    assert study.begin() == []


def test_records_are_looked_at_once_for_all_runs_that_ended_meanwhile() -> None:
    study = Study()
    looks, see = list[int](), study.work.see

    def counted() -> Sequence[Course]:
        looks.append(1)
        return see()

    study.work.see = counted
    for run in [study.work.next() for _ in range(15)]:
        assert run is not None
        study.end(run)
    assert not looks
    assert {run.id[:-1] for run in study.begin()} == {"plain-s", "same-s"}
    assert len(looks) == 1
