"""``list``: all that can be named, and runs by what they are."""

import json
from pathlib import Path

import pytest
from command_line import run
from example_reports import leave_study

from sagan_bench import cli
from sagan_bench.config.variants import presets
from sagan_bench.core.extensions import KINDS

Out = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("what", "named", "then"),
    [
        ("presets", "twins32", "train --preset NAME"),
        ("spaces", "twins32", "tune --space NAME"),
        ("metrics", "twin_rate", "train --set evaluation.intra_class=true"),
        ("kinds", "attention kind", "init block"),
        ("variants", "no-attention", "show variant NAME"),
        ("studies", "presence", "ablate NAME"),
    ],
)
def test_what_can_be_named_is_listed_with_what_makes_use_of_it(
    what: str, named: str, then: str, capsys: Out
) -> None:
    assert run("list", what) == 0
    text = capsys.readouterr().out
    assert named in {line.split("  ")[0] for line in text.splitlines()}
    assert then in text.splitlines()[-1]
    assert run("list", what, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert named in (told if isinstance(told, dict) else [each["name"] for each in told])


def test_nothing_that_can_be_named_is_left_out(capsys: Out) -> None:
    assert run("list", "presets", "--json") == 0
    assert json.loads(capsys.readouterr().out) == presets()
    assert run("list", "kinds", "--json") == 0
    kinds = json.loads(capsys.readouterr().out)
    assert kinds == {kind.what: list(kind) for kind in KINDS.values()}
    assert run("list", "preset") == cli.USAGE
    assert "did you mean 'presets'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (("--variant", "sagan"), 5),
        (("--status", "diverged"), 5),
        (("--study", "mine", "--variant", "no-attention"), 5),
        (("--data", "twins"), 15),
    ],
)
def test_runs_are_listed_by_what_they_are(asked: tuple[str, ...], count: int, capsys: Out) -> None:
    leave_study(
        Path("runs/mine"), {"no-attention": [0.3] * 5, "sagan": [0.5] * 5, "g-only": [None] * 5},
        pictures=False,
    )  # fmt: skip
    assert run("list", *asked, "--json") == 0
    assert len({row["run"] for row in json.loads(capsys.readouterr().out)}) == count
    assert run("list", *asked) == 0


def test_where_no_run_is_like_that_it_is_said(capsys: Out) -> None:
    leave_study(Path("runs/mine"), pictures=False)
    assert run("list", "--variant", "feat8", "--study", "mine") == cli.USAGE
    assert "no run of 10 in runs is of study mine and variant feat8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--status", "finishd"), "--status finishd: did you mean 'finished'?"),
        (("--variant", "saga"), "--variant saga: did you mean 'sagan'?"),
        (("--study", "mien"), "--study mien: did you mean 'mine'?"),
        (("--data", "twin"), "--data twin: did you mean 'twins'?"),
        (("--runs", "nowhere"), "--runs nowhere: there is no such folder"),
        (("--runs", "runs/mine/study.json"), "--runs runs/mine/study.json: that is a file"),
    ],
)
def test_what_no_run_is_of_is_told_with_what_is_near(
    asked: tuple[str, ...], said: str, capsys: Out
) -> None:
    leave_study(Path("runs/mine"), pictures=False)
    assert run("list", *asked) == cli.USAGE
    assert said in " ".join(capsys.readouterr().err.split())


def test_filters_of_runs_are_refused_for_other_lists(capsys: Out) -> None:
    for option in ("--study", "--variant", "--status", "--data"):
        assert run("list", "variants", option, "x") == cli.USAGE
        told = " ".join(capsys.readouterr().err.split())
        assert "list variants: --study, --variant, --status and --data are of runs alone" in told


def test_that_no_run_failed_is_an_answer_and_no_typo(capsys: Out) -> None:
    leave_study(Path("runs/mine"), pictures=False)
    assert run("list", "--status", "failed") == cli.USAGE
    assert capsys.readouterr().err.strip().endswith("is of status failed")
