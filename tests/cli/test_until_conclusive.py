"""``ablate --until-conclusive``: seeds are added until the answer is there, as a user meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from sagan_bench import cli
from sagan_bench.runs import records
from sagan_bench.runs.records import Status

Out = pytest.CaptureFixture[str]
CLI = Path(cli.__file__).parents[2] / "cli.py"
STUDY = """
question = "Does it help?"
baseline = "plain"
variants = ["clear", "same"]
seeds = [0, 1, 2, 3, 4]
variant.plain.mean = 10
variant.clear.mean = 7
variant.same.mean = 10
[on.other]
metric = "fid"
min_effect = 0.5
"""
PROGRAM = """
import json, random, sys
from pathlib import Path
mean, seed, out = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
value = mean + random.Random(sys.argv[4] + seed).gauss(0, 1)
(out / "result.json").write_text(json.dumps({"metrics": {"fid": value}}))
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file, script = tmp_path / "grows.toml", tmp_path / "draw.py"
    script.write_text(PROGRAM)
    command = f"{sys.executable} -S {script} {{mean}} {{seed}} {{out}} {{variant}}"
    file.write_text(f"command = {json.dumps(command)}\n{STUDY}")
    return file


def ablate(study: Path, *more: str) -> int:
    runs = str(study.parent / "runs")
    return run("ablate", str(study), "--runs", runs, "--in-process", *more)


def counts(study: Path) -> dict[str, int]:
    """Return how many runs each variant has."""
    folder = study.parent / "runs" / study.stem
    names = [path.name.partition("-")[0] for path in folder.glob("*-s*-*")]
    return {name: names.count(name) for name in sorted(set(names))}


def said(study: Path, capsys: Out) -> Any:
    capsys.readouterr()
    assert run("compare", str(study.parent / "runs" / study.stem), "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_pairs_stop_where_they_have_their_answer_and_the_baseline_goes_on(
    study: Path, capsys: Out
) -> None:
    assert ablate(study, "--until-conclusive", "--max-seeds", "8", "--no-futility") == 0
    assert "6 cells to run" not in capsys.readouterr().err
    found = said(study, capsys)
    clear, same = found["courses"]
    assert (clear["why"], clear["stopped"]) == ("verdict", len(clear["looks"]) - 1)
    ended = clear["looks"][-1]["n"]
    assert counts(study) == {"clear": ended, "plain": 8, "same": 8}
    assert same["why"] == "spent"
    assert found["primary"]["comparisons"][0]["verdict"].startswith("better")
    assert ablate(study, "--until-conclusive", "--max-seeds", "8") == 0
    assert counts(study) == {"clear": ended, "plain": 8, "same": 8}  # nothing is run again


@pytest.mark.slow
def test_other_orders_and_seeds_beyond_say_the_same(study: Path, capsys: Out) -> None:
    options = ["--until-conclusive", "--max-seeds", "8", "--no-futility"]
    assert ablate(study, *options) == 0
    first = said(study, capsys)
    assert ablate(study, *options, "--seeds", "8-10") == 0
    assert counts(study) == {"clear": 8, "plain": 11, "same": 11}
    assert ablate(study, *options, "--seeds", "20,3") == 0
    beyond = said(study, capsys)
    assert beyond["courses"] == first["courses"]
    (unneeded,) = (study.parent / "runs" / study.stem).glob("same-s10-*")
    stopped = records.read(unneeded).model_copy(update={"status": Status.INTERRUPTED})
    (unneeded / "record.json").write_bytes(stopped.to_json())
    assert ablate(study, *options) == 0  # it is not gone on with, and nothing waits for it
    assert "interrupted" not in capsys.readouterr().err
    shutil.rmtree(study.parent / "runs")
    for seeds in ("7,6", "3", "0-2"):
        ablate(study, *options, "--seeds", seeds, "--only", "same,plain")
        capsys.readouterr()
    assert ablate(study, *options) == 0
    other = said(study, capsys)["courses"]
    assert [c["sentence"] for c in other] == [c["sentence"] for c in first["courses"]]


@pytest.mark.slow
def test_a_hopeless_pair_stops_and_its_chance_is_said(study: Path, capsys: Out) -> None:
    text = study.read_text().replace("min_effect = 0.5", "min_effect = 0.01")
    text = text.replace("{variant}", "x").replace("same.mean = 10", "same.mean = 10.0001")
    study.write_text(
        text.replace('"clear", "same"', '"same"').replace("variant.clear.mean = 7", "")
    )
    assert ablate(study, "--until-conclusive") == 0
    (course,) = said(study, capsys)["courses"]
    assert course["why"] == "futile"
    assert "would decide with chance 0.0" in course["sentence"]
    assert counts(study)["same"] < 20


def test_it_may_stand_in_the_file_and_is_part_of_what_the_study_is(
    study: Path, capsys: Out
) -> None:
    plain = study.read_text()
    study.write_text(f"until_conclusive = {{max_seeds = 8}}\n{plain}")
    assert ablate(study) == 0
    study.write_text(plain)
    assert ablate(study) == cli.USAGE
    assert "until_conclusive.pairs" in capsys.readouterr().err
    study.write_text(
        f"until_conclusive = {{max_seeds = 8}}\n{plain}".replace('"same"]', '"same", "x"]') + "\n"
    )
    assert ablate(study, "--dry-run") == cli.USAGE
    other = plain.replace("clear", "third")  # as many pairs, and not the same
    study.write_text(f"until_conclusive = {{max_seeds = 8}}\n{other}")
    assert ablate(study) == cli.USAGE
    assert "third v plain" in capsys.readouterr().err
    study.write_text(plain)
    assert ablate(study, "--until-conclusive", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 3 * 8  # no later end was asked for


@pytest.mark.slow
def test_a_later_end_goes_on_at_the_prices_of_the_beginning(study: Path, capsys: Out) -> None:
    options = ["--until-conclusive", "--no-futility"]
    assert ablate(study, *options, "--max-seeds", "5") == 0
    first = said(study, capsys)
    assert ablate(study, *options, "--max-seeds", "8") == 0
    second = said(study, capsys)
    for before, after in zip(first["courses"], second["courses"], strict=True):
        assert after["looks"][0] == before["looks"][0]
    assert second["rule"]["horizon"] == 5
    assert second["rule"]["most"] == 8


def test_what_it_could_see_is_said_before_the_first_run(study: Path, capsys: Out) -> None:
    assert ablate(study, "--until-conclusive", "--dry-run") == 0
    assert "could see: unknown without a spread" in capsys.readouterr().out
    assert ablate(study, "--until-conclusive", "--dry-run", "--spread", "1", "--json") == 0
    seen = json.loads(capsys.readouterr().out)["could_see"]
    assert [sight["n"] for sight in seen["sights"]] == [5, 8, 12, 16, 20]
    assert seen["sights"][0]["price"] == pytest.approx(0.00562, abs=5e-6)  # of two pairs
    assert seen["sights"][0]["claimed"] > seen["sights"][-1]["claimed"] > 0.5
    for spread in ("0", "inf", "-1", "1e-320"):
        assert ablate(study, "--dry-run", "--spread", spread) == cli.USAGE
        assert "expected the standard deviation" in capsys.readouterr().err
    assert ablate(study, "--spread", "1") == cli.USAGE
    assert "add --dry-run" in capsys.readouterr().err


def test_what_it_could_see_follows_from_an_earlier_study(study: Path, capsys: Out) -> None:
    assert ablate(study, "--name", "earlier") == 0
    capsys.readouterr()
    assert ablate(study, "--until-conclusive", "--dry-run", "--json") == 0
    seen = json.loads(capsys.readouterr().out)["could_see"]
    assert seen["origin"].startswith("of 15 runs in ")
    assert 0.4 < seen["spread"] < 1.6
    assert all(hours > 0 for hours in seen["device_hours"] if hours is not None)
    assert ablate(study, "--name", "other", "--dry-run") == 0  # also of one of its seeds alone
    out = capsys.readouterr().out
    assert all(f"│ {n} " in out for n in (5, 8, 12, 16, 20))
    study.write_text(study.read_text().replace("min_effect = 0.5", 'min_effect = "50%"'))
    assert ablate(study, "--name", "share", "--dry-run", "--json") == 0
    share = json.loads(capsys.readouterr().out)["could_see"]
    assert "what matters is 50% of a mean of 9.8" in share["origin"]
    assert share["sights"][-1]["claimed"] > 4.5  # half of about 10


def test_collapsed_runs_are_not_of_the_spread_that_is_foreseen(study: Path, capsys: Out) -> None:
    collapses = PROGRAM.replace("gauss(0, 1)", "gauss(0, 1) + 1000 * (seed == '3')")
    (study.parent / "draw.py").write_text(collapses)
    study.write_text(study.read_text() + 'lost = "fid > 150"\n')
    assert ablate(study, "--name", "earlier", "--seeds", "0-7") == 0
    capsys.readouterr()
    assert ablate(study, "--name", "new", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["could_see"]["spread"] < 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--max-seeds", "4"], "--max-seeds"),
        (["--until-conclusive", "--max-seeds", "many"], "--max-seeds"),
    ],
)
def test_what_cannot_be_is_refused(
    study: Path, capsys: Out, options: list[str], named: str
) -> None:
    assert ablate(study, *options) == cli.USAGE
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_a_fixed_study_that_was_seen_does_not_become_one_that_pays(
    study: Path, capsys: Out
) -> None:
    assert ablate(study) == 0
    assert ablate(study, "--until-conclusive") == cli.USAGE
    assert "another study is in" in capsys.readouterr().err


@pytest.mark.slow
def test_begun_around_runs_that_could_be_seen_nothing_is_called_decided(
    study: Path, capsys: Out
) -> None:
    assert ablate(study, "--until-conclusive", "--max-seeds", "5") == 0
    (study.parent / "runs" / study.stem / "study.json").unlink()
    assert ablate(study, "--until-conclusive", "--max-seeds", "8", "--no-futility") == 0
    found = said(study, capsys)
    assert {c["verdict"] for c in found["primary"]["comparisons"]} == {None}
    for course in found["courses"]:
        assert course["sentence"].endswith("no verdict: exploratory after 1 look")
        assert {look["verdict"] for look in course["looks"]} == {None}
    folder = study.parent / "page"
    assert run("report", str(study.parent / "runs" / study.stem), "--out", str(folder)) == 0
    assert run("verify", str(folder / "data" / "report.json")) == 0


def test_the_page_shows_look_by_look(study: Path, capsys: Out) -> None:
    assert ablate(study, "--until-conclusive", "--max-seeds", "8", "--no-futility") == 0
    out = study.parent / "page"
    assert run("report", str(study.parent / "runs/grows"), "--out", str(out)) == 0
    page = (out / "index.html").read_text()
    assert "Look by look" in page
    assert "decided after 5 seeds a side" in page
    assert "interval_low" in (out / "data/looks.csv").read_text()
    assert run("verify", str(out / "data/report.json")) == 0


def test_what_collapsed_counts_as_diverged_and_is_declared(study: Path, capsys: Out) -> None:
    study.write_text(study.read_text() + 'lost = "fid > 9.5"\n')
    assert ablate(study, "--seeds", "0-4") == 0
    found = said(study, capsys)["primary"]["comparisons"][0]
    values = [np.random.default_rng(0)]  # drawn by the program
    assert values
    assert found["n_baseline_diverged"] > 0
    study.write_text(study.read_text().replace("9.5", "9"))
    assert ablate(study) == cli.USAGE
    assert "lost" in capsys.readouterr().err


@pytest.mark.slow
def test_a_driver_that_is_killed_twice_says_the_same(study: Path, capsys: Out) -> None:
    options = ["--until-conclusive", "--max-seeds", "12", "--no-futility"]
    assert ablate(study, *options, "--name", "whole") == 0
    whole = json.loads(json.dumps(comparison(study, capsys, "whole")))
    script = study.parent / "draw.py"
    script.write_text(f"import time\ntime.sleep(0.3)\n{script.read_text()}")
    runs = study.parent / "runs"
    command = [sys.executable, str(CLI), "ablate", str(study), "--runs", str(runs), *options]
    for enough in (4, 13):
        driver = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while finished(runs / "grows") < enough:
            assert driver.poll() is None
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert ablate(study, *options) == 0
    again = comparison(study, capsys, "grows")
    assert again["courses"] == whole["courses"]
    assert again["primary"] == whole["primary"]


def finished(folder: Path) -> int:
    return sum('"finished"' in file.read_text() for file in folder.glob("*/record.json"))


def comparison(study: Path, capsys: Out, name: str) -> Any:
    capsys.readouterr()
    assert run("compare", str(study.parent / "runs" / name), "--json") == 0
    return json.loads(capsys.readouterr().out)
