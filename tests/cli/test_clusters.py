"""Studies on a cluster as a user meets them: handed over, left, followed, stopped; refusals."""

import json
import os
import signal
from pathlib import Path

import pytest
from command_line import run
from pretended_slurm import Courses, PretendedSlurm, cluster
from test_command import STUDY

from sagan_bench import cli
from sagan_bench.cli import running, signals
from sagan_bench.execution.engines import slurm
from sagan_bench.runs import records
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Status

__all__ = ["cluster"]
Out = pytest.CaptureFixture[str]
COMMAND = "true {seed} {lr} {out}"
CELLS = ("slow-s0", "fast-s0", "slow-s1", "fast-s1")


@pytest.fixture
def study(tmp_path: Path, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a command, whose runs finish with the same figure, and a profile for it."""
    (tmp_path / "tiny.toml").write_text(STUDY)
    profile = f'[lab]\nkind = "slurm"\npython = "{cluster.python}"\nsbatch = {{ time = "10" }}\n'
    (tmp_path / "engines.toml").write_text(profile)
    monkeypatch.setattr(running, "SECONDS_BETWEEN_LOOKS", 0.05)
    courses(cluster)
    return tmp_path / "tiny.toml"


def courses(cluster: Courses, **known: list[list[str]]) -> None:
    program = Program(source="x", better={"loss": "lower"})
    scores = [program.score(100, {"loss": 0.5})]
    cluster.put_down(program.record("x", "v", 0, Status.RUNNING, scores, steps=100), known)


def ablate(study: Path, *more: str, engine: str = "lab") -> int:
    given = ("--command", COMMAND, "--engine", engine, "--device", "cpu")
    return run("ablate", str(study), *given, *more)


def test_a_study_runs_on_a_cluster_to_its_verdict(
    study: Path, cluster: PretendedSlurm, capsys: Out
) -> None:
    assert ablate(study, "--json") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["primary"]["comparisons"]) == 1
    assert "4 of 4 cells to run, as many at a time as there is room" in said.err
    manifest = (study.parent / "runs" / "tiny" / "study.json").read_text()
    assert "slurm" not in manifest
    assert "engine" not in manifest
    assert ablate(study, "--in-process") == 0  # nothing is left to do, wherever
    assert len(cluster.calls("sbatch")) == 1


def test_detached_and_the_same_command_follows_and_stop_ends(
    study: Path, cluster: PretendedSlurm, capsys: Out
) -> None:
    courses(cluster, **{"slow-s0": [["step 3", "wait"]]})
    assert ablate(study, "--detach", "--jobs", "1") == 0
    assert "go on without this command" in capsys.readouterr().err
    assert "--array=0-3%1" in cluster.calls("sbatch")[0]
    assert ablate(study, "--stop") == 0
    said = capsys.readouterr()
    assert "4 runs of runs/tiny are to write checkpoints and end" in said.err
    assert "no run of runs/tiny is on a cluster" in said.out
    (path,) = (study.parent / "runs" / "tiny").glob("slow-s0-*")
    assert records.read(path).reason == "interrupted"
    assert ablate(study) == 0
    assert records.read(path).status is Status.FINISHED
    assert [attempt.from_step for attempt in records.read(path).attempts] == [0, 3]


def test_ctrl_c_leaves_the_runs_and_says_so(
    study: Path, cluster: PretendedSlurm, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    courses(cluster, **{name: [["step 3", "wait"]] for name in CELLS})
    seen = slurm.Slurm._read

    def read(engine: slurm.Slurm, cell: slurm._Cell) -> None:
        seen(engine, cell)
        if cell.offset:
            os.kill(os.getpid(), signal.SIGINT)
            monkeypatch.setattr(slurm.Slurm, "_read", seen)

    monkeypatch.setattr(slurm.Slurm, "_read", read)
    assert ablate(study) == signals.INTERRUPTED
    said = capfd.readouterr().err
    assert "leaving; what has begun goes on" in said
    assert "stopping as soon as" not in said
    assert "go on without this command; the same command" in said
    assert not cluster.calls("scancel")
    assert ablate(study, "--detach") == 0  # takes them up
    assert len(cluster.calls("sbatch")) == 1


def test_cancelled_before_it_began_is_told_and_the_same_command_hands_it_over(
    study: Path, cluster: PretendedSlurm, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(study, "--only", "slow", "--detach") == 0
    assert ablate(study, "--only", "slow") == 0
    cluster.hold()
    seen = slurm.Slurm._hand_over

    def hand_over(engine: slurm.Slurm) -> None:
        seen(engine)
        os.system("scancel 2_0 2_1")

    monkeypatch.setattr(slurm.Slurm, "_hand_over", hand_over)
    capsys.readouterr()
    assert ablate(study) == cli.SOME_FAILED
    said = capsys.readouterr().err
    assert said.count("not begun: runs/tiny/fast-s") == 2
    assert "what was not begun is with the same command" in said


def test_a_dry_run_shows_the_script_and_what_it_takes(
    study: Path, cluster: PretendedSlurm, capsys: Out
) -> None:
    assert ablate(study, "--dry-run", "--jobs", "3") == 0
    said = capsys.readouterr().out
    assert "#!/bin/bash" in said
    assert "sbatch --array=0-3%3 --time=10" in said
    assert "device: unknown until a cell is finished" in said
    assert ablate(study, "--dry-run", "--json") == 0
    assert "exec" in json.loads(capsys.readouterr().out)["script"]
    assert not (study.parent / "runs").exists()
    assert not cluster.calls("squeue")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda:1"), "--device cuda:1: which device a run has is the cluster's choice"),
        (("--slurm", "array=1"), "array: the engine sets --array itself"),
        (("--engine", "processes", "--detach"), "--detach: runs of --engine processes end with"),
        (("--engine", "processes", "--slurm", "time=1"), "options of sbatch are not for"),
        (("--engine", "slurm"), "no time"),
        (("--engine", "lap"), "--engine lap: did you mean 'lab'?"),
        (("--engines", "none.toml"), "cannot read none.toml"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    study: Path, cluster: PretendedSlurm, capsys: Out, options: tuple[str, ...], words: str
) -> None:
    assert ablate(study, *options) == cli.USAGE
    assert words in capsys.readouterr().err
    assert not cluster.calls("sbatch")


def test_what_sbatch_refuses_ends_the_command(
    study: Path, cluster: PretendedSlurm, capsys: Out
) -> None:
    cluster.say("sbatch", "sbatch: error: Invalid account or account/partition combination")
    assert ablate(study) == cli.USAGE
    assert "Invalid account or account/partition" in capsys.readouterr().err


def test_other_threads_within_a_study_are_told(
    study: Path, cluster: PretendedSlurm, capsys: Out
) -> None:
    assert ablate(study, "--seeds", "0") == 0
    for path in (study.parent / "runs" / "tiny").glob("*-s0-*"):
        record = json.loads((path / "record.json").read_text())
        record["attempts"][-1]["threads"] = 2
        (path / "record.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert ablate(study, "--seeds", "0,1", "--slurm", "cpus-per-task=4") == 0
    assert "have had 2 CPU threads, and --engine gives 4" in capsys.readouterr().err
