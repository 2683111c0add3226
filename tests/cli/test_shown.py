"""``show``: what a run and a study are, in short; and how figures are called everywhere."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from command_line import run
from example_reports import BEGAN, Values, leave_run, leave_study, score, settings

Out = pytest.CaptureFixture[str]
VALUES: Values = {"sagan": [0.5, 0.52, None], "no-attention": [0.3, 0.31, 0.28]}
BY_FID = {"on": {"twins": {"metric": "fid", "min_effect": "5%"}}}


def test_a_run_is_shown_with_each_end_its_pictures_and_what_it_took(capsys: Out) -> None:
    config = settings("sagan", 3)
    steps = config.run.steps
    scores = [score(0.3, steps // 2), score(0.4, steps)]
    folder = leave_run(Path("runs/one-s3"), config, 0.4, scores=scores)
    assert run("show", "one") == 0
    out = capsys.readouterr().out
    headers = re.findall(r"step (\d+), n = 2048", out)
    assert headers == [str(steps // 2), str(steps)]
    newest = max((folder / "samples").glob("step-*.png"))
    assert f"newest:  {newest}\n" in out
    assert "samples: runs/one-s3/samples\n" in out
    assert "data:    twins, 32 px\n" in out
    assert re.search(r"^device:  cpu.*, fp32, ", out, re.MULTILINE)
    assert re.search(rf"trained 0:04:\d\d, scored 0:00:30; {BEGAN:%Y-%m-%d} 03:08 UTC\n", out)


def test_a_study_is_shown_in_short(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_study(Path("runs/quick"), VALUES, pictures=False, changed=BY_FID)
    assert run("show", "quick") == 0
    out = capsys.readouterr().out
    assert "runs/quick: 6 cells: 5 finished, 1 diverged\n" in out
    assert "decides: FID[effnet-lite0]; a difference of 5% matters; seeds 0-2\n" in out
    row = next(line for line in out.splitlines() if line.startswith("│ sagan "))
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["sagan", "183.5", "2", "1"]
    assert f"samples: {folder}/*/samples\n" in out
    assert "again:   python cli.py ablate quick --seeds 0,1,2" in out
    leave_study(Path("my runs/mine"), pictures=False)
    assert run("show", "my runs/mine") == 0
    assert "ablate quick --runs 'my runs' --name mine\n" in capsys.readouterr().out
    monkeypatch.chdir("my runs/mine")
    assert run("show", ".") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"--runs '{Path.cwd().parent}' --name mine" in told.replace("' '", " ")
    monkeypatch.chdir("../..")
    assert "compare runs/quick" in out

    assert run("show", "quick", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"]["name"] == "quick"
    assert {each["status"] for each in told["runs"]} == {"finished", "diverged"}


def test_a_study_without_a_run_is_shown(capsys: Out) -> None:
    folder = leave_study(Path("runs/quick"), VALUES, pictures=False)
    for record in folder.glob("*/record.json"):
        record.unlink()
    assert run("show", "quick") == 0
    out = capsys.readouterr().out
    assert "runs/quick: 6 cells: 6 not begun\n" in out
    assert "scores:  none yet\n" in out


def bare(text: str) -> list[str]:
    """Return what is called FID without a word on whose features, where figures stand."""
    lines = (line for line in text.splitlines() if re.search(r"\d", line))
    return [line for line in lines if re.search(r"\bfid\b(?!\[)", line, re.IGNORECASE)]


def test_no_figure_of_other_features_is_called_fid(capsys: Out) -> None:
    assert bare("│ FID │ 3.2 │")
    assert not bare("FID[effnet-lite0] 3.2")
    leave_study(Path("runs/quick"), VALUES, pictures=False, changed=BY_FID)
    verbs = [
        ["list"], ["show", "quick"], ["show", "sagan-s0"], ["compare", "quick"],
        ["ablate", "presence", "--set", "data.source=twins", "--dry-run"],
        ["report", "quick", "--out", "page"],
    ]  # fmt: skip
    for verb in verbs:
        assert run(*verb) == 0
        said = capsys.readouterr()
        texts = f"{said.out}\n{said.err}".replace("its FID, IS and KID are on another", "")
        assert not bare(texts), verb
    page = unescape(Path("page/index.html").read_text())
    shown = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    cells = re.findall(r"<(?:td|th|h\d|text)[^>]*>([^<]*)<", shown)
    assert "FID[effnet-lite0]" in page
    assert [cell for cell in cells if re.fullmatch(r"(?i)\W*(Δ )?fid\W*", cell)] == []
