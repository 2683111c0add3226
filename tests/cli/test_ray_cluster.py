"""Studies on Ray as a user meets them: run, stopped, previewed; refusals."""

import json
import os
import signal
from pathlib import Path

import pytest
from command_line import run
from pretended_ray import PretendedRay, cluster
from test_clusters import COMMAND, Out, courses
from test_command import STUDY

from sagan_bench import cli
from sagan_bench.cli import running, signals
from sagan_bench.execution.engines.ray import Ray
from sagan_bench.runs import records

__all__ = ["cluster"]


@pytest.fixture
def study(tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a command, whose runs finish with the same figure, and a profile for it."""
    (tmp_path / "tiny.toml").write_text(STUDY)
    (tmp_path / "engines.toml").write_text('[lab]\nkind = "ray"\ncpus_per_cell = 2\n')
    monkeypatch.setattr(running, "SECONDS_BETWEEN_LOOKS", 0.05)
    courses(cluster)
    return tmp_path / "tiny.toml"


def ablate(study: Path, *more: str, engine: str = "ray") -> int:
    given = ("--command", COMMAND, "--engine", engine, "--device", "cpu")
    return run("ablate", str(study), *given, *more)


def test_a_study_runs_on_ray_to_its_verdict(
    study: Path, cluster: PretendedRay, capsys: Out
) -> None:
    assert ablate(study, "--json") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["primary"]["comparisons"]) == 1
    assert "4 of 4 cells to run, as many at a time as there is room" in said.err
    folder = study.parent / "runs" / "tiny"
    assert "ray" not in (folder / "study.json").read_text()
    assert not cluster.actors
    assert ablate(study, "--in-process") == 0  # nothing is left to do, wherever
    assert ablate(study, "--stop") == 0
    assert "no run of runs/tiny is on a cluster" in capsys.readouterr().out


def test_ctrl_c_has_all_runs_write_checkpoints_and_the_same_command_goes_on(
    study: Path, cluster: PretendedRay, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    courses(cluster, **{"slow-s0": [["step 3", "wait"]]})
    seen = Ray._take

    def take(engine: Ray, cell: object, lines: list[str], offset: int) -> None:
        seen(engine, cell, lines, offset)  # type: ignore[arg-type]
        if any('"step": [3' in line for line in lines):
            monkeypatch.setattr(Ray, "_take", seen)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Ray, "_take", take)
    assert ablate(study) == signals.INTERRUPTED
    assert "the same command again goes on" in capsys.readouterr().err
    assert not cluster.actors
    (path,) = (study.parent / "runs" / "tiny").glob("slow-s0-*")
    assert records.read(path).reason == "interrupted"
    assert ablate(study) == 0
    assert [attempt.from_step for attempt in records.read(path).attempts] == [0, 3]


def test_a_dry_run_shows_what_would_be_asked_for(
    study: Path, cluster: PretendedRay, capsys: Out
) -> None:
    assert ablate(study, "--dry-run", "--gpus-per-cell", "0.25", engine="lab") == 0
    said = capsys.readouterr().out
    assert "actors of Ray at auto: as many of 4 as there is room for, each with 2 CPU" in said
    assert "0.25 GPU" in said
    assert not (study.parent / "runs").exists()
    assert not cluster.begun


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--detach",), "--detach: runs of --engine ray end with the command"),
        (("--detach",), "ray job submit --no-wait"),
        (("--slurm", "time=1"), "options of sbatch are not for an engine of kind ray"),
        (("--engine", "processes", "--address", "a:1"), "address is not for an engine of kind"),
        (("--device", "cuda:1"), "--gpus-per-cell 1"),
        (("--address", "ray://head:10001"), "the command is to run on a machine of the cluster"),
        (("--address", "head"), "address: head: expected auto, or the head's HOST:6379"),
        (("--gpus-per-cell", "2"), "gpus_per_cell: expected 1.0 or less"),
        (("--gpus-per-cell", "0.001"), "gpus_per_cell: expected 0, or at least 0.01"),
        (("--cpus-per-cell", "0"), "cpus_per_cell: expected 1 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(
    study: Path, cluster: PretendedRay, capsys: Out, options: tuple[str, ...], words: str
) -> None:
    assert ablate(study, *options) == cli.USAGE
    assert words in capsys.readouterr().err
    assert not cluster.begun


def test_a_cluster_that_is_not_there_ends_the_command(
    study: Path, cluster: PretendedRay, capsys: Out
) -> None:
    cluster.is_up = False
    assert ablate(study) == cli.USAGE
    assert "no connection to Ray at auto" in capsys.readouterr().err


def test_a_command_whose_runs_are_stopped_from_elsewhere_lists_what_is_not_done(
    study: Path, cluster: PretendedRay, capsys: Out
) -> None:
    courses(cluster, **{"slow-s0": [["step 3", "lost interrupted"]]})
    assert ablate(study, "--jobs", "1") == cli.SOME_FAILED
    said = capsys.readouterr().err
    assert "no run is finished yet" in said
    assert "interrupted: runs/tiny/slow-s0" in said
    assert said.count("not begun: runs/tiny/") == 3
    assert "what was interrupted goes on with the same command" in said
    assert "error:" not in said
    assert ablate(study) == 0
