"""The verbs ``ablate``, ``compare``, ``list`` and ``show variant``, as a user meets them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
from command_line import run
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.cli import signals
from sagan_bench.config.variants import variants
from sagan_bench.experiments.studies import shipped
from sagan_bench.training import loop

ROOT = Path(cli.__file__).parents[2]
SETS = [part for text in SMALL for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    return file


def ablate(study: Path, *more: str) -> int:
    runs = str(study.parent / "runs")
    return run("ablate", str(study), "--runs", runs, "--in-process", *SETS, *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of a finished study, not to be changed by a test."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "small.toml"
    file.write_text(FILE)
    assert ablate(file) == 0
    return folder / "runs"


def test_a_study_runs_and_says_what_can_be_claimed(study: Path, capsys: Out) -> None:
    assert ablate(study) == 0
    shown = capsys.readouterr()
    assert "small: Does it run?" in shown.out
    assert "nothing can be claimed" in shown.out
    assert "sagan against no-attention (attention was not engaged; no conclusion" in shown.out
    assert f"compare {study.parent / 'runs' / 'small'}" in shown.out
    assert "sagan against no-attention: model.attention.generator [] → [8]" in shown.err
    assert "4 of 4 cells to run, 2 at a time" in shown.err or "1 at a time" in shown.err
    assert "4/4 sagan-s1: finished, twin_rate" in shown.err

    assert ablate(study, "--json") == 0
    again = capsys.readouterr()
    assert again.err == ""  # nothing ran
    found = json.loads(again.out)
    assert found["name"] == "small"
    assert len(found["runs"]) == 4
    assert found["variants"][1]["blocks"][0]["name"] == "attention8"


def test_a_finished_study_is_recognised_without_torch(finished: Path) -> None:
    command = ["ablate", str(finished.parent / "small.toml"), "--runs", str(finished), *SETS]
    program = (
        f"import sys; from sagan_bench import cli\nsys.argv = ['cli.py', *{command!r}]\n"
        "try:\n    cli.main()\nfinally:\n    assert not {'torch', 'optuna'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_prints_the_plan_and_touches_nothing(study: Path, capsys: Out) -> None:
    assert ablate(study, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "4 of 4 to run" in text
    assert "unknown until a cell is finished" in text
    assert "model.attention.generator [] → [8]" in text
    assert ablate(study, "--dry-run", "--json", "--seeds", "1", "--only", "sagan") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [point["id"] for point in plan["cells"] if point["to_run"]] == ["sagan-s1"]
    assert plan["disk_bytes"] > 0
    assert not (study.parent / "runs").exists()


def test_a_failed_cell_ends_with_3_and_can_be_tried_again(
    study: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = loop.train

    def fail(config: Any, *rest: Any) -> Iterator[Any]:
        if config.variant == "sagan" and config.seed == 1:
            raise RuntimeError("the device fell over")
        return train(config, *rest)

    monkeypatch.setattr("sagan_bench.session.session.train", fail)
    assert ablate(study) == cli.SOME_FAILED
    shown = capsys.readouterr()
    assert "RuntimeError: the device fell over" in shown.err
    assert "1 of 2 runs of sagan failed" in shown.out
    monkeypatch.undo()
    assert ablate(study) == cli.SOME_FAILED
    assert ablate(study, "--retry-failed") == 0


def test_a_study_of_which_every_cell_failed_says_so(
    study: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Iterator[Any]:
        raise RuntimeError("the device fell over")

    monkeypatch.setattr("sagan_bench.session.session.train", fail)
    assert ablate(study) == cli.SOME_FAILED
    said = capsys.readouterr().err
    assert said.count("failed: ") >= 4
    assert "what failed is tried again with --retry-failed" in said
    assert "error:" not in said


@pytest.mark.slow
def test_a_study_can_be_put_to_other_images_by_the_path_alone(tmp_path: Path, capsys: Out) -> None:
    images = layouts.cifar10(tmp_path / "cifar", 20)
    sizes = [text for text in SMALL if not text.startswith("data.")]
    sets = [part for text in sizes for part in ("--set", text)]
    code = run(
        "ablate", "presence", "--data", f"cifar10:{images}", "--runs", str(tmp_path / "runs"),
        "--in-process", *sets, "--seeds", "0,1",
    )  # fmt: skip
    assert code == 0
    text = capsys.readouterr().out
    assert "FID[effnet-lite0]" in text
    assert (tmp_path / "runs" / "presence-cifar10" / "study.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "no study is called 'nosuch'"),
        (["quick", "--set", "run.stepz=1"], "did you mean 'run.steps'"),
        (["quick", "--seeds", "x"], "--seeds x: expected seeds from 0 and ranges of them"),
        (["quick", "--only", "sagn"], "did you mean 'sagan'"),
        (["quick", "--data", "folder:/nowhere"], "/nowhere"),
        (["quick", "--preset", "celeba64"], "CelebA"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    arguments: list[str], says: str, tmp_path: Path, capsys: Out
) -> None:
    assert run("ablate", *arguments, "--runs", str(tmp_path)) == cli.USAGE
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_study_under_the_same_name_is_refused(finished: Path, capsys: Out) -> None:
    code = ablate(finished.parent / "small.toml", "--steps", "9")
    assert code == cli.USAGE
    assert "run.steps: 6 here, 9 asked" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("after_sec", [0.3, 1.5])
def test_ctrl_c_while_workers_start_fails_no_cell(study: Path, after_sec: float) -> None:
    """A terminal sends it to the whole group of processes."""
    command = [sys.executable, "cli.py", "ablate", str(study), "--jobs", "2", *SETS]
    command += ["--set", "run.steps=400", "--runs", str(study.parent / "runs")]
    driver = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert driver.stderr is not None
    for line in driver.stderr:
        if "cells to run" in line:
            break
    time.sleep(after_sec)
    os.killpg(driver.pid, signal.SIGINT)
    _, error = driver.communicate(timeout=120)
    assert driver.returncode == signals.INTERRUPTED, error
    stored = [json.loads(path.read_text()) for path in study.parent.glob("runs/*/*/record.json")]
    assert {record["status"] for record in stored} <= {"interrupted"}


@pytest.mark.slow
def test_an_interrupted_study_checkpoints_every_cell_and_goes_on(study: Path) -> None:
    command = [sys.executable, "cli.py", "ablate", str(study), "--jobs", "2", *SETS]
    command += ["--set", "run.steps=400", "--runs", str(study.parent / "runs")]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    folder = study.parent / "runs" / "small"
    while len(list(folder.glob("*/metrics.jsonl"))) < 2 and driver.poll() is None:
        pass
    os.kill(driver.pid, signal.SIGINT)
    _, error = driver.communicate(timeout=120)
    assert driver.returncode == signals.INTERRUPTED, error
    assert "the same command again goes on" in error
    stored = [json.loads(path.read_text()) for path in folder.glob("*/record.json")]
    assert [record["status"] for record in stored] == ["interrupted"] * 2
    for path in folder.glob("*/checkpoints"):
        assert list(path.iterdir())


# --- compare, list, show -----------------------------------------------------------------------


def test_runs_can_be_compared_by_name_in_every_format(finished: Path, capsys: Out) -> None:
    code = run("compare", "small", "--runs", str(finished))
    assert code == 0
    assert "small: Does it run?" in capsys.readouterr().out
    loose = ["compare", "small", "--runs", str(finished), "--baseline", "no-attention"]
    assert run(*loose, "--metric", "fid", "--min-effect", "2") == 0
    text = capsys.readouterr().out
    assert "FID[effnet-lite0]" in text
    assert "chosen now, not before the runs" in text
    assert "sagan differs in model.attention.generator [] → [8]" in text
    assert run(*loose, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    mean = found["variants"][1]["summary"]["mean"]
    assert run(*loose, "--csv") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("variant,baseline,n,n_ok,twin_rate_mean,twin_rate_sd,effect")
    assert float(rows[1].split(",")[4]) == mean
    assert run(*loose, "--markdown") == 0
    shown = capsys.readouterr().out
    assert "| sagan | 2/2 |" in shown
    assert "| --- | ---: | ---: |" in shown
    assert run(*loose, "--latex") == 0
    assert r"\begin{tabular}{lrrrrrrrrrrrr}" in capsys.readouterr().out
    for effect in ("x%", "%", "nan", "-5", "inf%"):
        assert run(*loose, f"--min-effect={effect}") == cli.USAGE
        assert f"--min-effect {effect}: expected a number" in capsys.readouterr().err


def test_single_runs_can_be_compared_by_their_folders(finished: Path, capsys: Out) -> None:
    runs = sorted(str(path.parent) for path in finished.glob("*/*-s0-*/record.json"))
    assert len(runs) == 2
    assert run("compare", *runs, "--baseline", runs[0]) == 0
    assert "n = 1 v 1" in capsys.readouterr().out
    assert run("compare", *runs) == cli.USAGE
    assert "--baseline" in capsys.readouterr().err
    assert run("compare", "nosuch", "--runs", str(finished), "--baseline", "x") == cli.USAGE


def test_variants_and_studies_are_listed(capsys: Out) -> None:
    assert run("list", "variants") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in variants())
    assert run("list", "studies", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(shipped())
    assert run("list", "studies") == 0
    assert "quick" in capsys.readouterr().out
    assert run("list", "studys") == cli.USAGE
    assert "did you mean 'studies'" in capsys.readouterr().err


def test_a_variant_is_shown_in_words_and_keys(capsys: Out) -> None:
    assert run("show", "variant", "residual") == 0
    text = capsys.readouterr().out
    assert variants()["residual"]["says"] in text
    assert '"residual"' in text
    asked = ["show", "variant", "wider+bf16", "--baseline", "no-attention", "--precision", "bf16"]
    assert run(*asked, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert ["model.attention.kind", "full", "wider"] in shown["differences"]
    assert len(shown["says"]) == 2
    flops = [fact["flops_per_step"] for fact in shown["facts"].values()]
    assert flops[1] > flops[0]
    assert run("show", "variant", "residul") == cli.USAGE
    assert "did you mean 'residual'" in capsys.readouterr().err


def test_measuring_goes_with_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ablate", "--measure") == 2
    assert "add --dry-run" in capsys.readouterr().err
    assert run("ablate", "smoke", "--dry-run", "--measure") == 0
    assert "device-hours by a step timed here, without scoring" in capsys.readouterr().out
    assert not Path("runs").exists()
