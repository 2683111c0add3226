"""The verb ``report``: what it renders, where, and what it says."""

import csv
import json
import os
import time
import webbrowser
from functools import partial
from pathlib import Path

import command_line
import pytest
from example_reports import CLEAR, leave_run, leave_study, score, settings

from sagan_bench import cli
from sagan_bench.runs.records import Status, read

run = partial(command_line.run, "report")


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


def test_a_stored_report_is_rendered_elsewhere_and_left_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few(Path("runs/quick"))
    assert run("quick", "--out", "shared") == 0
    before = {file: file.stat().st_mtime_ns for file in Path("shared").rglob("*")}
    assert run("shared/data/report.json", "--out", "mine") == 0
    assert capsys.readouterr().out.endswith("report: mine/index.html\n")
    assert {file: file.stat().st_mtime_ns for file in Path("shared").rglob("*")} == before
    shared, mine = ({file.relative_to(root): file.read_bytes() for file in root.rglob("*.*")}
                    for root in (Path("shared"), Path("mine")))  # fmt: skip
    assert shared == mine
    assert run("quick", "shared/data/report.json", "--out", "mine") == cli.USAGE
    assert "--out names the folder of one page" in capsys.readouterr().err
    assert run("shared/data/report.json", "--watch") == cli.USAGE
    assert "does not change" in capsys.readouterr().err


def test_a_baseline_that_the_page_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few(Path("runs/quick"))
    assert run("quick", "--baseline", "no-attention") == 0  # the study's own
    for what in ("quick", "reports/quick/data/report.json"):
        assert run(what, "--baseline", "sagan") == cli.USAGE
        assert "it is for runs that no study names" in capsys.readouterr().err


@pytest.mark.parametrize("comparable", [True, False])
def test_a_variant_without_a_run_yet_is_named(
    comparable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"no-attention": [0.3, 0.4], "sagan": [], "wider": [0.5]}
    leave_study(Path("runs/quick"), values, changed={"comparable": comparable}, pictures=False)
    assert run("quick") == 0
    told = "2 runs of sagan, 1 run of wider"
    bare = "Of sagan no run is over: nothing here is of that."
    out, html = capsys.readouterr().out, Path("reports/quick/index.html").read_text()
    assert f"still to come: {told}" in out
    assert f"note: {bare}" in out
    assert f"Still to come: {told}." in html
    assert f"<li>{bare}</li>" in html
    stored = json.loads(Path("reports/quick/data/report.json").read_text())
    assert stored["to_come"] == {"sagan": 2, "wider": 1}


def test_runs_csv_has_the_fingerprint_of_the_figures_alone() -> None:
    """A run that was scored again, by more images, has figures of two protocols."""
    for variant in ("sagan", "no-attention"):
        config = settings(variant, 0)
        steps = config.run.steps
        scores = [
            score(0.4, steps),
            score(0.2, steps, sampling_seed=1),
            score(0.9, steps, n_fake=4096),
        ]
        leave_run(Path("runs") / variant, config, 0.4, scores=scores, pictures=False)
    assert run("runs/sagan", "runs/no-attention", "--baseline", "sagan", "--out", "mine") == 0
    first, again, _ = scores
    for row in csv.DictReader(Path("mine/data/runs.csv").read_text().splitlines()):
        assert row["fingerprint"] == f"{first.fingerprint};{again.fingerprint}"
        assert float(row["twin_rate"]) == pytest.approx(0.3)


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


def test_the_closest_may_be_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    few(Path("runs/quick"))
    assert run("quic") == cli.USAGE
    error = capsys.readouterr().err
    assert "no study, tuning or run is at quic, nor in runs; did you mean 'quick'?" in error
    assert run("zzz") == cli.USAGE
    assert "known are: quick, " in capsys.readouterr().err


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
