"""The verb ``tune`` as a user meets it.  Runs are scripted, except where it is said."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_line import run
from example_runs import SMALL
from example_tunings import FILE, SMALLER, Scripted

from sagan_bench import cli
from sagan_bench.cli import tables
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.execution import engines
from sagan_bench.experiments.driver import held
from sagan_bench.experiments.tuning.findings import of_tuning
from sagan_bench.runs import records
from sagan_bench.runs.finding import find_runs

ROOT = Path(cli.__file__).parents[2]
QUICK = ("--preset", "quick")
SETS = [part for text in [*SMALLER, "run.eval_images=10"] for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


def by_rate(config: RunConfig, step: int) -> float | None:
    if config.training.beta1 > 0.4:
        return None
    return 1e5 * config.training.lr_g + 60 / step + config.seed


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        engines, "opened", lambda profile, place, stop: Scripted(by_rate, place.jobs or 2)
    )
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    return str(file)


def test_a_tuning_runs_goes_on_and_says_what_its_winner_is_worth(space: str, capsys: Out) -> None:
    command = ["tune", *QUICK, "--space", space, "--jobs", "2", *SETS]
    assert run(*command, "--trials", "6") == 0
    shown = capsys.readouterr()
    assert "6 trials of 60 steps in all, 2 at a time" in shown.err
    assert "sagan-0/t0000-s0 (1/6): FID[effnet-lite0] 41" in shown.err
    assert "(fresh seed): FID[effnet-lite0]" in shown.err
    assert "on fresh seeds 3, 4; its search said" in shown.out
    assert "importance (PED-ANOVA): not said: " in shown.out
    assert "optuna-dashboard runs/tune-sagan/optuna.journal.log" in shown.out
    assert "train --from-study tune-sagan" in shown.out

    assert run(*command, "--trials", "6", "--json") == 0
    again = capsys.readouterr()
    assert again.err == ""  # nothing ran
    assert len(json.loads(again.out)["searches"][0]["trials"]) == 6
    assert run(*command, "--trials", "8") == 0
    assert "went on once after figures on set B" in capsys.readouterr().out

    assert run("tune", "show", "tune-sagan") == 0
    assert "8 of 8 trials" in capsys.readouterr().out
    assert run("tune", "show", "tune-sgan") == cli.USAGE
    assert "did you mean 'tune-sagan'" in capsys.readouterr().err


def test_a_narrow_table_breaks_no_word_of_its_header(
    space: str, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("tune", *QUICK, "--space", space, *SETS, "--trials", "2", "--no-confirm") == 0
    capsys.readouterr()
    monkeypatch.setattr(tables, "_columns", lambda: 80)
    assert run("tune", "show", "tune-sagan") == 0
    out = capsys.readouterr().out
    (header,) = [line for line in out.splitlines() if line.startswith("┃ trial")]
    assert "┃ FID[effnet-lite0] ┃" in header
    assert len(header) <= 80


def test_the_winner_is_exported_and_trained(space: str, tmp_path: Path, capsys: Out) -> None:
    """The training is real."""
    assert run("tune", *QUICK, "--space", space, *SETS, "--trials", "3", "--name", "mine") == 0
    capsys.readouterr()
    assert run("tune", "best", "mine", "--as-config") == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "runs" / "mine" / "best-sagan.toml").read_text()
    assert "on seeds on which nothing was chosen (3, 4)" in text
    assert run("tune", "best", "mine", "--json") == 0
    winner = json.loads(capsys.readouterr().out)
    file = tmp_path / "best.toml"
    file.write_text(text)

    assert "evaluation.n_fake =" not in text
    assert "# Scored as the preset says: the search's n_real, n_fake, " in text
    scored = []
    for source in (["--config", str(file)], ["--preset", "quick"]):
        assert run("show", "config", *source, "--json") == 0
        scored.append(json.loads(capsys.readouterr().out)["config"]["evaluation"])
    assert scored[0] == scored[1]

    steps = [part for text in SMALL for part in ("--set", text)]
    assert run("train", "--config", str(file), *steps, "--out", "a", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "finished"
    assert record["config"]["training"]["lr_g"] == winner["params"]["training.lr_g"]
    assert run("train", "--from-study", "mine", *steps, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == record["config_digest"]
    assert run("train", "--from-study", "mine", "--config", str(file)) == cli.USAGE
    assert "leave one out" in capsys.readouterr().err
    assert run("train", "--from-study", "mine", "--variant", "no-attention") == cli.USAGE


def test_a_trial_that_nobody_goes_on_with_is_interrupted(
    space: str, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    def cut(config: RunConfig, step: int) -> float | None:
        return sys.exit(130) if config.training.lr_g != 4e-4 else by_rate(config, step)

    monkeypatch.setattr(engines, "opened", lambda profile, place, stop: Scripted(cut, 1))
    assert run("tune", *QUICK, "--space", space, *SETS, "--trials", "2", "--jobs", "1") == 130
    assert run("tune", "show", "tune-sagan") == 0
    assert "2 of 2 trials (1 complete, 1 interrupted)" in capsys.readouterr().out
    assert run("report", "tune-sagan") == 0
    assert "2 of 2: 1 complete, 1 interrupted" in Path("reports/tune-sagan/index.html").read_text()
    with held(Path("runs/tune-sagan")):
        assert run("tune", "show", "tune-sagan") == 0
    assert "(1 complete, 1 running)" in capsys.readouterr().out


def test_variants_are_tuned_equally(space: str, capsys: Out) -> None:
    command = [
        "tune",
        "--variants",
        "sagan,no-attention",
        *QUICK,
        "--space",
        space,
        *SETS,
        "--trials",
        "4",
    ]
    assert run(*command) == 0
    shown = capsys.readouterr()
    assert "8 trials of 60 steps in all" in shown.err
    assert "the unit is a search; conditional on these searches, 1 a side" in shown.out
    assert "--from-study tune-sagan-no-attention --variant no-attention" in shown.out
    assert run("tune", "best", "tune-sagan-no-attention", "--variant", "no-attention") == 0


def test_several_objectives_are_shown_side_by_side(space: str, capsys: Out) -> None:
    command = ["tune", *QUICK, "--space", space, *SETS, "--trials", "4"]
    assert run(*command, "--objective", "fid,images_per_sec") == 0
    shown = capsys.readouterr().out
    assert "pruner none" in shown
    assert "images_per_sec" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--objective", "fidd"], "did you mean 'fid'"),
        (["--sampler", "tp"], "did you mean 'tpe'"),
        (["--pruner", "hyperband", "--trials", "9"], "each needs 10 trials"),
        (["--objective", "fid,images_per_sec", "--pruner", "median"], "leave it out"),
        (["--space", "nosuch"], "no space is called 'nosuch'"),
        (["--preset", "qick"], "did you mean 'quick'"),
        (["--variants", "sagan,sagan"], "one is there twice"),
        (["--variant", "sagn"], "did you mean 'sagan'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], says: str, capsys: Out) -> None:
    assert run("tune", *arguments) == cli.USAGE
    assert says in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_failed_trial_ends_with_3(
    space: str, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    def fails(config: RunConfig, step: int) -> float:
        if config.training.n_critic == 2:
            raise RuntimeError("out of memory")
        return config.training.lr_g

    monkeypatch.setattr(
        engines, "opened", lambda profile, place, stop: Scripted(fails, place.jobs or 2)
    )
    command = ["tune", *QUICK, "--space", space, *SETS, "--trials", "6", "--sampler", "random"]
    assert run(*command) == 3
    assert "of sagan-0 failed: out of memory" in capsys.readouterr().err


def test_what_is_not_confirmed_is_not_exported(space: str, capsys: Out) -> None:
    assert run("tune", *QUICK, "--space", space, *SETS, "--trials", "2", "--no-confirm") == 0
    capsys.readouterr()
    for command in (["tune", "best", "tune-sagan"], ["train", "--from-study", "tune-sagan"]):
        assert run(*command) == cli.USAGE
        assert "no winner of sagan is confirmed yet" in capsys.readouterr().err


def test_a_tuning_says_once_that_its_trials_emulate_bf16(
    space: str, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr(system, "multiplies_bf16", lambda device: False)
    bf16 = ("--set", "training.precision=bf16", "--no-confirm")
    command = ["tune", *QUICK, "--space", space, *SETS, *bf16, "--trials", "2"]
    for said in (1, 0):  # what is over says nothing
        assert run(*command) == 0
        assert capsys.readouterr().err.count("does not multiply bf16") == said


def test_a_finished_tuning_is_recognised_without_torch(space: str, tmp_path: Path) -> None:
    command = ["tune", *QUICK, "--space", space, *SETS, "--trials", "2"]
    assert run(*command) == 0
    program = (
        f"import sys; from sagan_bench import cli\nsys.argv = ['cli.py', *{command!r}]\n"
        "try:\n    cli.main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_killed_driver_loses_no_trial_and_makes_none_twice(tmp_path: Path, capsys: Out) -> None:
    """Real runs in four worker processes; `kill -9` of the driver in the middle; two go on."""
    file = tmp_path / "small.toml"
    file.write_text(FILE.replace("run.steps = 60", "run.steps = 40"))
    more = ["--set", "run.checkpoint_every=5", "--trials", "6", "--name", "k"]
    command = ["tune", "--space", str(file), *QUICK, *SETS, *more]
    folder = tmp_path / "runs" / "k"
    program = [sys.executable, str(ROOT / "cli.py"), *command, "--jobs", "4"]
    driver = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    while "(2/6)" not in (line := driver.stderr.readline()):
        assert line, "the driver ended"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stderr.close()

    left = {one.number: one for one in of_tuning(folder).searches[0].trials}
    told = [number for number, one in left.items() if one.outcome not in ("running", "interrupted")]
    assert told
    assert len(left) > len(told)
    stopped = {path.name for path in find_runs(folder)}
    assert run(*command, "--jobs", "2") == 0, capsys.readouterr().err

    (one,) = of_tuning(folder).searches
    assert [trial.number for trial in one.trials] == list(range(6))
    assert {trial.outcome for trial in one.trials} <= {"complete", "pruned"}
    for number in told:
        assert one.trials[number] == left[number]
    runs = find_runs(folder)
    assert stopped <= {path.name for path in runs}
    of_trials = [path for path in runs if "-s0-" in path.name]
    assert len(of_trials) == 6
    assert Counter(path.name[:5] for path in of_trials).most_common(1)[0][1] == 1
    attempts = [records.read(path).attempts for path in of_trials]
    assert any(len(some) > 1 and some[-1].from_step > 0 for some in attempts)  # from a checkpoint
    assert one.reported is not None
