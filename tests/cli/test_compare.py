"""The verb ``compare``: the same runs give the same verdict on every route, or none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from example_records import unsealed
from example_reports import CLEAR, leave_study

from sagan_bench import cli

Out = pytest.CaptureFixture[str]
OWN = ["--baseline", "no-attention"]


def compared(capsys: Out, *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["compare", *arguments, "--json"])
    assert exit_.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def verdicts(found: dict[str, Any]) -> set[str | None]:
    readings = (found["primary"], *found["secondary"])
    return {c["verdict"] for reading in readings for c in reading["comparisons"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leave_study(tmp_path_factory.mktemp("compare") / "quick", CLEAR, pictures=False)


def looked(study: Path, folder: Path, looks: int) -> Path:
    """Return a copy of a study that was extended after so many looks."""
    shutil.copytree(study, folder)
    memory = unsealed(folder / "study.json") | {"looks": looks}
    (folder / "study.json").write_text(json.dumps(memory))
    return folder


@pytest.mark.parametrize("looks", [0, 2])
@pytest.mark.parametrize(
    "route", [OWN, [*OWN, "--metric", "twin_rate"], [*OWN, "--min-effect", "0.05"]]
)
def test_a_studys_own_question_has_its_own_answer(
    study: Path, tmp_path: Path, capsys: Out, looks: int, route: list[str]
) -> None:
    """Its looks and its plan hold: asked by options, it says what it says by itself."""
    folder = str(looked(study, tmp_path / "quick", looks))
    by_itself = compared(capsys, folder)
    assert compared(capsys, folder, *route) == by_itself
    (comparison,) = by_itself["primary"]["comparisons"]
    assert comparison["verdict"] == (None if looks else "better by as much as matters")
    assert ("exploratory after 2 looks" in comparison["standing"]) == bool(looks)


def test_a_study_that_was_stopped_is_provisional_on_every_route(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    shutil.rmtree(next(folder.glob("sagan-s4-*")))
    for route in ([], OWN):
        found = compared(capsys, str(folder), *route)
        assert verdicts(found) == {None}
        assert found["headline"][0].startswith("Provisional: 9 runs are over")


@pytest.mark.parametrize(
    "other",
    [["--baseline", "sagan"], [*OWN, "--metric", "fid"], [*OWN, "--min-effect", "0.01"],
     [*OWN, "--min-effect", "5%"]],
)  # fmt: skip
def test_another_question_of_a_studys_runs_is_post_hoc(
    study: Path, capsys: Out, other: list[str]
) -> None:
    found = compared(capsys, str(study), *other)
    assert verdicts(found) == {None}
    assert found["primary"]["comparisons"][0]["standing"].startswith("post hoc")


def test_runs_out_of_a_study_are_post_hoc(study: Path, tmp_path: Path, capsys: Out) -> None:
    runs = [str(path) for path in sorted(study.glob("*-s*"))]
    copied = tmp_path / "copied"
    shutil.copytree(study, copied, ignore=shutil.ignore_patterns("study.json"))
    for what in (runs, [str(copied)], [str(study), *runs[:1]]):
        found = compared(capsys, *what, *OWN)
        assert verdicts(found) == {None}
        assert found["primary"]["comparisons"][0]["standing"].startswith("post hoc")


def test_without_a_comparison_the_margin_is_the_declared_one(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    for path in folder.glob("no-attention-*"):
        shutil.rmtree(path)
    with pytest.raises(SystemExit):
        cli.main(["compare", str(folder)])
    assert "smallest difference that matters: 0.05." in capsys.readouterr().out
