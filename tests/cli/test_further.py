"""Going on with finished runs, and their pruning, as a user meets them."""

import json
from pathlib import Path

import pytest
from command_line import run
from example_reports import leave_run, leave_study, score, settings
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.core.errors import UserError
from sagan_bench.experiments import studies

Out = pytest.CaptureFixture[str]
SETS = [
    part for text in (*SMALL, "run.score_weights=[]", "run.steps=2") for part in ("--set", text)
]


def keep(path: Path, name: str = "step-00000400.ckpt") -> Path:
    """Leave a run something to be pruned."""
    file = path / "checkpoints" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(3 * 2**20))
    return file


def test_a_run_says_what_it_keeps_goes_on_and_is_begun_with(capsys: Out) -> None:
    assert run("train", *SETS, "--out", "runs/first", "--dry-run") == 0
    assert "MiB, kept at the end (--set run.keep_training_state=true|false)" in (
        capsys.readouterr().out
    )
    assert run("train", *SETS, "--out", "runs/first") == 0
    said = capsys.readouterr().out
    assert "to train it further (--steps); free: python cli.py prune runs/first\n" in said
    assert run("train", *SETS, "--out", "runs/first", "--set", "run.steps=3") == 0
    assert json.loads(Path("runs/first/record.json").read_text())["step"] == 3
    begun = ("train", *SETS, "--out", "runs/second", "--init-from", "first")
    assert run(*begun, "--dry-run", "--json") == 0
    capsys.readouterr()
    assert run(*begun) == 0
    config = json.loads(Path("runs/second/record.json").read_text())["config"]
    assert config["run"]["init_from"] == "runs/first"
    capsys.readouterr()
    assert run("show", "second") == 0
    again = "".join(capsys.readouterr().out.split())
    assert f"--settraining.init_sha256={config['training']['init_sha256']}" in again
    assert "--init-fromruns/first" in again
    assert "run.init_from" not in again
    assert run("prune", "first") == 0
    assert run(*begun[:-3], "runs/third", *begun[-2:], "--dry-run") == cli.USAGE
    assert "runs/first keeps no training state" in capsys.readouterr().err
    assert run(*begun[:-1], "frist") == cli.USAGE
    assert "no run is at frist" in capsys.readouterr().err
    log = Path("runs/first/log.txt").read_text()
    assert log.count("--- attempt of ") == log.count("--- finished\n") == 2


def test_commands_to_copy_quote_odd_names(capsys: Out) -> None:
    path = leave_run(Path("runs/my <&> run"), settings("sagan", 7), 0.5, pictures=False)
    keep(path)
    assert run("show", path) == 0
    assert "free: python cli.py prune 'runs/my <&> run'" in capsys.readouterr().out
    leave_study(Path("runs/a study"), pictures=False)
    assert run("show", "a study", "--log") == cli.USAGE
    assert "use: python cli.py compare 'runs/a study'" in capsys.readouterr().err


def test_where_nothing_is_kept_prune_leaves_no_file(capsys: Out) -> None:
    path = leave_run(Path("runs/only"), settings("sagan", 7), 0.5, pictures=False)
    before = sorted(path.rglob("*"))
    assert run("prune", "runs") == 0
    assert "nothing" in capsys.readouterr().out
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--init-from", ""), ("train", "--from-study", ""), ("show", ""),
        ("prune", "only", ""), ("report", ""), ("compare", " "), ("sample", ""),
        ("evaluate", ""), ("probe", ""), ("ablate", ""), ("ablate", "smoke", "--only", ""),
        ("train", "--variant", ""), ("train", "--preset="), ("show", "variant", ""), ("",),
        ("list", "--study", ""), ("tune", "show", ""), ("ablate", "--seeds", " "),
    ],
)  # fmt: skip
def test_an_empty_name_is_refused_even_beside_one_run_alone(
    words: tuple[str, ...], capsys: Out
) -> None:
    kept = keep(leave_run(Path("runs/only"), settings("sagan", 7), 0.5, pictures=False))
    assert run(*words) == cli.USAGE
    assert kept.exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing but an empty word stands after" in told
    assert "was a variable not set?" in told


@pytest.mark.parametrize("verb", [("sample", "only", "--as", "png", "--n", 2), ("report", "only")])
def test_a_folder_that_is_a_file_is_refused_and_stays(verb: tuple[str, ...], capsys: Out) -> None:
    leave_run(Path("runs/only"), settings("sagan", 7), 0.5, pictures=False)
    Path("thesis.tex").write_text("mine")
    assert run(*verb, "--out", "thesis.tex") == cli.USAGE
    assert "--out thesis.tex is a file; name a folder" in capsys.readouterr().err
    assert run(*verb, "--out", "thesis.tex/sub/page") == cli.USAGE
    told = " ".join(capsys.readouterr().err.split())
    assert "--out thesis.tex/sub/page: thesis.tex is a file; name a folder" in told
    assert Path("thesis.tex").read_text() == "mine"


def test_what_an_experiment_keeps_and_begins_with(tmp_path: Path) -> None:
    """No training state by default, since its budget is fixed; and its own seeds."""
    study = studies.load("smoke")
    config = study.requested("sagan", 0).config
    assert config.run.keep_training_state is False
    asked = study.model_copy(update={"set": {**study.set, "run.keep_training_state": True}})
    assert asked.requested("sagan", 0).config.run.keep_training_state is True
    for key, value in (("run.init_from", "x"), ("training.init_sha256", "0" * 64)):
        begun = study.model_copy(update={"set": {**study.set, key: value}})
        with pytest.raises(UserError, match=f"{key} = .*begin from their seeds"):
            begun.requested("sagan", 0)


def test_runs_and_studies_are_pruned(capsys: Out) -> None:
    leave_study(Path("runs/mine"), {"sagan": [0.5, 0.4]}, pictures=False)
    one, other = sorted(Path("runs/mine").glob("sagan-*"))
    alone = leave_run(Path("runs/alone"), settings("sagan", 7), 0.5, pictures=False)
    files = [keep(path) for path in (one, other, alone)]
    assert run("show", "alone") == 0
    assert "kept:    3.0 MiB to train it further" in capsys.readouterr().out
    assert run("prune", "alone", "mine") == 0
    said = capsys.readouterr().out
    assert said.count("pruned:  ") == 3
    assert "freed:   9.0 MiB; what was pruned cannot be trained further" in said
    assert not any(file.exists() for file in files)
    assert run("prune", "alone", "mine") == 0
    assert capsys.readouterr().out == "nothing is kept there\n"


def test_what_is_not_over_is_refused_and_in_a_study_left(capsys: Out) -> None:
    for name, status in (("all/cut", "interrupted"), ("all/bad", "failed"), ("all/done", None)):
        path = Path("runs") / name
        leave_run(path, settings("sagan", 0), 0.5, status=status, pictures=False)
        keep(path)
    assert run("prune", "all/cut") == cli.USAGE
    refused = capsys.readouterr().err
    assert "runs/all/cut is interrupted at step" in refused
    assert "goes on from its checkpoint" in refused
    assert run("prune", "all") == 0
    said = capsys.readouterr()
    assert [line[:9] for line in said.err.splitlines()] == ["left:    ", "left:    "]
    assert "freed:   3.0 MiB" in said.out
    assert [file.parts[2] for file in sorted(Path("runs").rglob("*.ckpt"))] == ["bad", "cut"]
    assert run("prune", "al") == cli.USAGE
    assert "no run is at al" in capsys.readouterr().err


def test_the_score_of_an_earlier_end_is_shown_and_listed(capsys: Out) -> None:
    config = settings("sagan", 3)
    steps = config.run.steps
    earlier = [score(0.25, 100), score(0.35, 100, sampling_seed=1)]
    leave_run(Path("runs/on"), config, 0.4, scores=[*earlier, score(0.4, steps)], pictures=False)
    assert run("show", "on") == 0
    said = capsys.readouterr().out
    assert "step 100, n = 2048" in said
    assert "0.25" in said
    assert f"step {steps}, n = 2048" in said
    assert run("list", "--json") == 0
    finals = [row for row in json.loads(capsys.readouterr().out) if row["final"]]
    assert [(row["score_step"], row["twin_rate"]) for row in finals] == [
        (100, 0.25), (100, 0.35), (steps, 0.4),
    ]  # fmt: skip
    assert run("list") == 0
    assert "0.25" not in capsys.readouterr().out
