"""Runs and events as lines of JSON: what comes back is what was sent, or is refused."""

import math
from pathlib import Path

import pytest
from example_studies import here, small_study

from sagan_bench.config.layers import override
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.execution import messages
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.messages import Unreadable
from sagan_bench.experiments import ablation
from sagan_bench.runs.command import Command
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Progress, SampleGrid, Scored, ScoringAhead
from sagan_bench.training.loop import Diverged, Step

BLOCK = """
from torch import nn
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention

@ATTENTION.register("mine")
class Mine(Attention):
    def __init__(self, channels, *more, **named):
        super().__init__()
    def forward(self, x):
        return x
"""


def test_a_run_of_ours_comes_back_as_it_was(tmp_path: Path) -> None:
    point = ablation.plan(small_study(tmp_path), tmp_path / "s", here).points[1]
    job = Job("t/sagan-s0", point.config, tmp_path / "s" / "x", "abc")
    line = messages.of_job(job)
    assert line.count("\n") == 1
    assert messages.job_in(line, tmp_path) == job
    assert messages.key_in(line) == ("t/sagan-s0", "abc")


def test_a_run_of_a_command_comes_back_as_it_was(tmp_path: Path) -> None:
    program = Program(source="x {seed} {lr}", values={"lr": 1e-4}, better={"fid": "lower"})
    command = Command(program, "a", 3, real="/pictures", measured=("kid",))
    job = Job("a-s3", command, tmp_path / "a", command.digest)
    assert messages.job_in(messages.of_job(job), tmp_path) == job


def test_a_run_with_a_file_of_components_needs_its_copy(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BLOCK)
    extension = extensions.load(tmp_path / "mine.py")
    point = ablation.plan(small_study(tmp_path), tmp_path / "s", here).points[1]
    config = override(point.ours, {"model.attention.kind": ("a test", "mine")})
    line = messages.of_job(Job("a", config, tmp_path / "a", "abc"))
    extensions.leave([extension], tmp_path / "place")
    extensions.forget("mine")
    with pytest.raises(UserError, match="mine"):
        messages.job_in(line, tmp_path / "nowhere")
    job = messages.job_in(line, tmp_path / "place")
    assert job.config == config
    assert [own.sha256 for own in job.own] == [extension.sha256]


def test_events_come_back_as_they_were() -> None:
    program = Program(source="x", better={"fid": "lower"})
    for what in (
        Step(3, None), Step(4, {"loss_d": 0.5, "gamma.g": -1e-30}), Diverged(7, "loss_g is nan"),
        Progress("score", 3, 10), Scored(program.score(8, {"fid": None})),
        Scored(program.score(9, {"fid": 1 / 3})), Ended(Status.INTERRUPTED, "pruned"),
        Ended(Status.FINISHED, None), ScoringAhead(9, 0, 4, ("x", "y"), None, at_least=False),
        SampleGrid(Path("runs/a/samples/step-00000001.png")),
    ):  # fmt: skip
        assert messages.event_in(messages.of_event(what)) == what
    last = messages.event_in(messages.of_event(Step(1, {"loss_d": math.nan})))
    assert isinstance(last, Step)
    assert math.isnan((last.row or {})["loss_d"])


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[1]", '{"version": 2, "step": [1, null]}', '{"version": 1}', "[" * 100_000,
        '{"version": 1, "step": ["x", null]}', '{"version": 1, "ended": ["well", null]}',
        '{"version": 1, "scored": [{}]}',
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(Unreadable):
        messages.event_in(line)


@pytest.mark.parametrize(
    "line", ["", '{"version": 1}', '{"version": 1, "id": "a", "digest": "", "path": "p"}',
             '{"version": 1, "id": "a", "digest": "", "path": "p", "config": {"seed": "x"}}'],
)  # fmt: skip
def test_what_is_no_run_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        messages.job_in(line, tmp_path)


def test_steps_are_told_now_and_then_whatever_else_is_told_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, step, grid = messages.Pace(2.0), Step(1, {}), SampleGrid(Path("grid.png"))
    assert pace.lets(step)
    told = []
    for now in (0.5, 1.0, 1.5, 2.0, 2.5):  # noqa: B007  # what the clock says
        told.append((pace.lets(grid), pace.lets(step)))
    assert told == [(True, now == 2.0) for now in (0.5, 1.0, 1.5, 2.0, 2.5)]
