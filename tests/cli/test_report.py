"""The verb ``report``: what it renders, where, and what it says."""

import json
import os
import time
import webbrowser
from pathlib import Path

import pytest
from example_reports import CLEAR, leave_run, leave_study, settings

from sagan_bench import cli
from sagan_bench.runs.records import Status, read


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", *map(str, arguments)])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def few(folder: Path) -> Path:
    """Leave a study that is quick to render."""
    return leave_study(folder, {name: values[:1] for name, values in CLEAR.items()})


def test_the_latest_study_is_rendered_opened_and_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    for name in ("newer", "older"):
        few(Path("runs") / name)
    for file in Path("runs/older").rglob("*.json"):
        os.utime(file, (0, 0))
    assert run("--open") == 0
    page = Path("reports/newer/index.html")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "newer: Does self-attention help here?"
    assert out[1] == "No verdict on sagan and no-attention: points only."
    assert out[-1] == f"report: {page}"
    assert shown == [page.resolve().as_uri()]
    assert 'href="newer/index.html"' in Path("reports/index.html").read_text()
    before = page.read_bytes()
    assert run("reports/newer/data/report.json") == 0  # without the runs
    assert page.read_bytes() == before


def test_runs_without_a_study_share_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        leave_run(Path("runs") / f"{name}-s0", settings(name, 0), value)
        for name, value in (("sagan", 0.5), ("no-attention", 0.3))
    ]
    assert run(*paths, "--out", "mine", "--baseline", "no-attention") == 0
    assert "No verdict on sagan and no-attention" in capsys.readouterr().out
    assert Path("mine/data/runs.csv").exists()
    assert not Path("reports").exists()


def test_runs_of_one_variant_are_shown_by_their_names() -> None:
    for name, width, value in (("small", 16, 0.3), ("large", 32, 0.5)):
        config = settings("sagan", 0, [f"name={name}", f"model.width={width}"])
        leave_run(Path("runs") / f"{name}-s0", config, value)
    assert run("runs/small-s0", "runs/large-s0", "--out", "mine", "--baseline", "small") == 0
    report = json.loads(Path("mine/data/report.json").read_text())
    for part in ("runs", "series", "pictures"):
        assert {one["variant"] for one in report[part]} >= {"small", "large"}, part


def test_watching_ends_with_the_study(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = few(Path("runs/quick"))
    files = sorted(folder.glob("*/record.json"))
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        record = read(file.parent).model_copy(update={"status": Status.RUNNING, "scores": ()})
        file.write_bytes(record.to_json())
    left = list(files)

    def one_more(seconds: float) -> None:
        file = left.pop()
        file.write_bytes(whole[file])

    monkeypatch.setattr(time, "sleep", one_more)
    assert run("--watch") == 0
    told = capsys.readouterr()
    assert not left
    assert "no run is finished yet" in told.err
    assert "reports/quick/index.html: 1 run over" in told.err
    assert "points only" in told.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no study is in runs; begin one with `ablate`"),
        (["missing"], "no run is at missing"),
        (["missing.json"], "cannot read missing.json"),
    ],
)
def test_what_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(*arguments) == cli.USAGE
    assert told in capsys.readouterr().err
