"""Verbs that read, over folders with damage, links and names that would command a terminal."""

import json
from pathlib import Path

import pytest
from command_line import run
from example_records import CONFIG, record, stored, unsealed
from example_reports import CLEAR, leave_study

from sagan_bench import cli
from sagan_bench.runs import finding

EVIL = "\x1b]0;PWN\x07\x9b31m\u202e\r\n"
Out = pytest.CaptureFixture[str]


def told(capsys: Out) -> str:
    """What was printed, which no terminal would obey."""
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not [one for one in text if not one.isprintable() and one != "\n"]
    return out + err


def three_runs() -> None:
    for name in "abc":
        stored(Path("runs") / name)
    Path("runs/b/record.json").write_bytes(b"")


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_one_bad_record_hides_no_other_from_list(
    capsys: Out, caplog: pytest.LogCaptureFixture, how: list[str]
) -> None:
    three_runs()
    assert run("list", *how) == 0
    out = capsys.readouterr().out
    for name in "ac":
        assert name in ([row["run"] for row in json.loads(out)] if how else out.split())
    assert "1 run is left out, because of: damaged record.json" in caplog.text
    assert "runs/b/record.json" in caplog.text


def test_a_folder_of_bad_records_only_is_refused(capsys: Out) -> None:
    three_runs()
    for name in "ac":
        Path(f"runs/{name}/record.json").write_text("[]")
    assert run("list") == cli.USAGE
    assert "runs/a/record.json" in capsys.readouterr().err


def test_one_bad_record_hides_no_other_from_a_comparison(
    capsys: Out, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave_study(Path("runs/st"), CLEAR, pictures=False)
    file = next(folder.glob("sagan-s0-*")) / "record.json"
    whole = unsealed(file)
    for part, value in (("config", {"training": {"compile": 1.5}}), ("scores", [1])):
        file.write_text(json.dumps(whole | {part: value}))
        assert run("compare", folder) == 0
        assert "4/4" in capsys.readouterr().out
        assert str(file) in caplog.text
        caplog.clear()
        assert run("report", folder) == 0
        assert "1 run is left out: what is stored there cannot be read." in told(capsys)


def test_linked_runs_are_listed_and_compared(capsys: Out) -> None:
    leave_study(Path("scratch/st"), CLEAR, pictures=False)
    Path("runs").mkdir()
    for number, folder in enumerate(Path("scratch/st").glob("*-s*")):
        (Path("runs") / f"linked-{number}").symlink_to(folder.resolve())
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({row["path"] for row in rows}) == sum(map(len, CLEAR.values()))
    assert run("compare", "runs", "--baseline", "no-attention") == 0


def test_damage_in_a_protocol_is_refused_with_the_file(capsys: Out) -> None:
    folder = leave_study(Path("runs/st"), CLEAR, pictures=False)
    file = next(folder.glob("sagan-s0-*")) / "record.json"
    whole = unsealed(file)
    whole["scores"][-1]["protocol"] = {"label_law": ""}
    file.write_text(json.dumps(whole))
    assert run("show", file.parent) == cli.USAGE
    assert str(file) in capsys.readouterr().err


def test_costs_beyond_all_bounds_are_shown(capsys: Out) -> None:
    stored(Path("runs/a"), cost={"train_sec": 1e300}, seed=10**20)
    assert run("show", "a") == 0
    assert "trained 1e+300 s" in capsys.readouterr().out
    assert run("list") == 0


def test_a_run_of_no_name_gets_a_hint_and_not_two_thousand_names(capsys: Out) -> None:
    for number in range(50):
        stored(Path("runs") / f"run-{number:04}")
    assert run("show", "zzz") == cli.USAGE
    assert capsys.readouterr().err.count("run-") < 40


def test_the_whole_disk_is_not_walked(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST_FOLDERS", 10)
    for number in range(20):
        (Path("disk") / str(number)).mkdir(parents=True)
    for verb in (["report", "disk"], ["list", "--runs", "disk"], ["compare", "disk"]):
        assert run(*verb) == cli.USAGE
        assert "more than 10 folders without a run" in capsys.readouterr().err


# --- The terminal ------------------------------------------------------------------------------


def test_no_control_character_of_a_record_reaches_the_terminal(capsys: Out) -> None:
    config = {**CONFIG, "name": EVIL}
    whole = record(run=f"{EVIL}a", reason=EVIL, variant=EVIL, status="failed", config=config)
    folder = Path("runs/a")
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(whole.to_json())
    for verb in (["list"], ["list", "--json"], ["show", "a"], ["show", "a", "--json"]):
        assert run(*verb) == 0
        told(capsys)
    (folder / "record.json").write_text(json.dumps({"schema_version": EVIL}))
    assert run("compare", "runs") == cli.USAGE


@pytest.mark.parametrize("how", [[], ["--csv"], ["--markdown"], ["--latex"], ["--json"]])
def test_no_control_character_of_runs_is_printed_by_a_comparison(
    capsys: Out, how: list[str]
) -> None:
    folder = leave_study(Path("runs/st"), CLEAR, pictures=False)
    for file in folder.glob("sagan-s*/record.json"):
        stored_there = unsealed(file)
        stored_there["variant"] = f"sagan{EVIL}"
        for score in stored_there["scores"]:
            score["warnings"] = [EVIL]
        file.write_text(json.dumps(stored_there))
    assert run("compare", folder, "--baseline", "no-attention", *how) == 0
    told(capsys)


def test_no_control_character_of_a_report_reaches_the_terminal(capsys: Out) -> None:
    folder = leave_study(Path("runs/st"), CLEAR, pictures=False)
    assert run("report", folder) == 0
    file = Path("reports/st/data/report.json")
    document = unsealed(file)
    document["name"] = document["findings"]["question"] = EVIL
    document["warnings"] = [EVIL]
    document["findings"]["headline"] = [EVIL]
    file.write_text(json.dumps(document))
    capsys.readouterr()
    assert run("report", file) == 0
    told(capsys)
