"""Errands as a user meets them: a study whose ``auto`` a node decides, its images, ``doctor``."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_runs import SMALL
from example_studies import FILE, here, small_study
from PIL import Image
from pretended_slurm import PretendedSlurm, cluster

from sagan_bench import cli
from sagan_bench.cli import errands as asking
from sagan_bench.cli import signals
from sagan_bench.config.layers import read
from sagan_bench.config.schema import Host
from sagan_bench.core.cpu import cores
from sagan_bench.execution import errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.engines._slurm import queue
from sagan_bench.execution.engines.slurm import Slurm
from sagan_bench.execution.errands import Answer, Errand
from sagan_bench.experiments import ablation
from sagan_bench.runs.records import RECORD, Cost, Status
from sagan_bench.session import failures

__all__ = ["cluster"]
Out = pytest.CaptureFixture[str]
NO_AUTO = (
    "--set", "training.precision=fp32", "--set", "evaluation.extractor=efficientnet-lite0",
)  # fmt: skip
SETS = tuple(part for text in SMALL for part in ("--set", text))
OTHER = Host(bf16=True, extractor="inception", tf32=True)


@pytest.fixture(autouse=True)
def _lab(tmp_path: Path, cluster: PretendedSlurm) -> None:
    (tmp_path / "small.toml").write_text(FILE)
    profile = f'[lab]\nkind = "slurm"\npython = "{cluster.python}"\nsbatch = {{ time = "10" }}\n'
    (tmp_path / "engines.toml").write_text(profile)
    cluster.answers()


def ablate(*more: str) -> int:
    return run("ablate", "small.toml", *SETS, "--engine", "lab", *more)


def host_in(name: str) -> dict[str, Any]:
    (file,) = Path("runs").glob(f"*/{name}")
    host: dict[str, Any] = json.loads(file.read_text())["host"]
    return host


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> list[Errand]:
    """A node that is this machine; returns the errands that it has done."""
    seen = list[Errand]()

    def send(place: Place, settings: object, errand: Errand, tell: Callable[[str], None]) -> Answer:
        seen.append(errand)
        return errands.answered(errands.done(errands.written(errand, place.folder), place.folder))

    monkeypatch.setattr(Slurm, "send", staticmethod(send))
    return seen


# --- auto ---


def test_a_node_says_what_auto_means_when_a_study_begins(
    cluster: PretendedSlurm, capsys: Out
) -> None:
    cluster.answers(host=OTHER)
    assert ablate("--detach") == 0
    assert "asked a node of lab (n1): bf16, inception" in capsys.readouterr().err
    assert host_in("study.json") == {"bf16": True, "extractor": "inception", "tf32": True}
    assert [words[0] for words in cluster.calls("sbatch")] == ["--parsable"] * 2
    assert ablate("--detach") == 0
    assert "asked a node" not in capsys.readouterr().err
    names = [word for words in cluster.calls("sbatch") for word in words if "--job-name" in word]
    assert len([name for name in names if name.endswith("-errand")]) == 1


def test_nothing_is_asked_where_nothing_is_auto(cluster: PretendedSlurm, capsys: Out) -> None:
    assert ablate("--detach", *NO_AUTO) == 0
    assert "asked" not in capsys.readouterr().err
    assert len(cluster.calls("sbatch")) == 1


def test_a_node_is_asked_where_but_a_later_variant_depends_on_it(
    cluster: PretendedSlurm, capsys: Out
) -> None:
    text = FILE.replace('["sagan"]', '["sagan", "tf"]')
    Path("small.toml").write_text(f'{text}[variant.tf]\ntraining.precision = "tf32"\n')
    assert ablate("--detach", *NO_AUTO) == 0, capsys.readouterr().err
    assert "asked a node of lab" in capsys.readouterr().err


def test_a_dry_run_asks_nobody_and_says_so(cluster: PretendedSlurm, capsys: Out) -> None:
    assert ablate("--dry-run", "--set", "training.precision=tf32") == 0
    said = capsys.readouterr()
    assert "auto is as on this machine" in said.err
    assert "a node of lab is asked" in said.err
    assert not cluster.calls("sbatch")
    assert not Path("runs").exists()


def test_a_node_decides_for_a_tuning_too(cluster: PretendedSlurm) -> None:
    cluster.answers(host=OTHER)
    tune = ("tune", "--preset", "quick", "--trials", "1", "--engine", "lab", "--detach")
    assert run(*tune, *FEW) == 0
    assert host_in("tuning.json")["extractor"] == "inception"


def test_another_torch_there_is_refused_before_anything_is_handed_over(
    cluster: PretendedSlurm, capsys: Out
) -> None:
    cluster.answers(versions={**errands.versions(), "torch": "1.0"})
    assert ablate() == cli.USAGE
    assert "n1 has torch 1.0 (here " in capsys.readouterr().err
    assert len(cluster.calls("sbatch")) == 1
    assert not [*Path("runs").glob("*/study.json")]


def test_ctrl_c_while_a_node_is_awaited_takes_the_job_back(
    cluster: PretendedSlurm, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.hold()
    look = queue.elements

    def elements() -> list[queue.Element]:
        os.kill(os.getpid(), signal.SIGINT)
        return look()

    monkeypatch.setattr(queue, "elements", elements)
    assert ablate() == signals.INTERRUPTED
    assert "the same command again goes on" in capsys.readouterr().err
    assert cluster.calls("scancel") == [["1_0"]]
    assert not [*Path("runs").glob("*/.slurm/errand*")]


# --- Images ---


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    text = FILE.replace('[on.twins]\nmetric = "twin_rate"', '[on.other]\nmetric = "fid"')
    (tmp_path / "small.toml").write_text(text)
    (tmp_path / "pictures").mkdir()
    for number in range(80):
        Image.new("RGB", (32, 32), (3 * number, 0, 0)).save(tmp_path / f"pictures/{number}.png")
    return f"folder:{tmp_path / 'pictures'}"


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))


FEW = ("--set", "data.train_images=40", "--set", "data.test_images=4")


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("auto", [(), NO_AUTO])
def test_images_are_made_ready_once_by_a_node(
    node: list[Errand], pictures: str, capsys: Out, auto: tuple[str, ...]
) -> None:
    given = ("--data", pictures, *FEW, *auto, "--slurm", "cpus-per-task=2", "--detach")
    assert ablate(*given) == 0, capsys.readouterr().err
    assert f"a node of lab makes {pictures} ready" in capsys.readouterr().err
    assert [(errand.prepare, errand.workers) for errand in node] == [(True, 2)]
    assert len(node[0].marks) == 2
    assert ablate(*given) == 0
    assert len(node) == 1


@pytest.mark.usefixtures("_cache")
def test_a_cache_that_is_not_shared_is_told(
    cluster: PretendedSlurm, pictures: str, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS_TO_SEE", 0)
    assert ablate("--data", pictures, *FEW) == cli.USAGE  # the pretended node makes none
    said = capsys.readouterr().err
    assert "n1 has made folder:" in said
    assert "set SAGAN_BENCH_CACHE to a folder that nodes share" in said


def test_what_a_node_refuses_is_told_with_its_name(cluster: PretendedSlurm, capsys: Out) -> None:
    cluster.answers(host=None, refused="--device cuda: no CUDA device is here")
    assert ablate() == cli.USAGE
    assert "n1: --device cuda: no CUDA" in capsys.readouterr().err


# --- signal_sec ---


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_notice_shorter_than_a_step_of_a_run_before_is_refused(
    cluster: PretendedSlurm, tmp_path: Path, capsys: Out, dry_run: bool
) -> None:
    planned = ablation.with_data(ablation.plan(small_study(tmp_path), Path("runs/small"), here))
    planned.manifest.write(planned.folder)
    point = planned.points[0]
    point.path.mkdir(parents=True)
    blank = failures.unstarted(point.ours, point.digest, point.path)
    begun = {"status": Status.INTERRUPTED, "step": 2, "cost": Cost(train_sec=250.0)}
    (point.path / RECORD).write_bytes(blank.model_copy(update=begun).to_json())
    more = ("--dry-run",) if dry_run else ("--detach",)
    assert ablate(*more) == cli.USAGE
    assert "signal_sec = 120: a step has taken 125 s" in capsys.readouterr().err
    assert not cluster.calls("sbatch")
    Path("engines.toml").write_text(Path("engines.toml").read_text() + "signal_sec = 185\n")
    assert ablate("--dry-run") == 0


def test_a_tuning_is_refused_by_its_runs_too(cluster: PretendedSlurm, capsys: Out) -> None:
    tune = ("tune", "--preset", "quick", "--trials", "1", "--engine", "lab", "--detach", *FEW)
    assert run(*tune) == 0
    (folder,) = (file.parent for file in Path("runs").glob("*/tuning.json"))
    config = read().config
    begun = {"status": Status.INTERRUPTED, "step": 1, "cost": Cost(train_sec=300.0)}
    record = failures.unstarted(config, "0" * 16, folder / "t").model_copy(update=begun)
    (folder / "t").mkdir()
    (folder / "t" / RECORD).write_bytes(record.to_json())
    assert run(*tune) == cli.USAGE
    assert "a step has taken 300 s" in capsys.readouterr().err


# --- doctor ---


def doctor(capsys: Out, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = run("doctor", "--engine", "lab", "--json", *more)
    return code, {found["name"]: found for found in json.loads(capsys.readouterr().out)}


def test_doctor_says_what_is_found_here_and_on_a_node(
    node: list[Errand], cluster: PretendedSlurm, capsys: Out
) -> None:
    Path("runs").mkdir()
    code, found = doctor(capsys, "--slurm", "partition=gpu")
    assert found["SLURM"]["text"] == "sbatch, squeue, scancel, scontrol are here"
    assert "takes --time=10 --partition=gpu" in found["sbatch"]["text"]
    assert found["arrays"]["text"] == "of up to 1,000 runs"
    assert "as here: python " in found["node software"]["text"]
    assert found["node runs"]["text"] == f"{Path('runs').absolute()} is seen there"
    assert found["node cache"]["ok"]
    assert f"{cores()} CPU cores" in found["node device"]["text"]
    assert {"node precision", "node efficientnet-lite0", "node disk"} <= found.keys()
    assert code == (0 if all(each["ok"] for each in found.values() if each["needed"]) else 1)
    assert not [*Path("runs").iterdir()]
    assert "--test-only" in cluster.calls("sbatch")[0]
    run("doctor", "--engine", "lab")
    assert " ok  node device " in capsys.readouterr().out


def test_doctor_looks_at_the_disk_of_runs_that_are_yet_to_be(
    node: list[Errand], capsys: Out, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    _, found = doctor(capsys, "--runs", str(tmp_path / "shared" / "mine" / "runs"))
    assert found["node runs"]["text"] == f"{tmp_path / 'shared'} is seen there"
    assert not [*(tmp_path / "shared").iterdir()]


def test_doctor_asks_no_node_where_sbatch_refuses(
    node: list[Errand], cluster: PretendedSlurm, capsys: Out
) -> None:
    cluster.say("sbatch", "allocation failure: Invalid partition name specified")
    code, found = doctor(capsys)
    assert code == cli.INTERNAL
    assert "refuses --time=10 " in found["sbatch"]["text"]
    assert "Invalid partition name" in found["sbatch"]["text"]
    assert not node


def test_doctor_tells_other_versions_unseen_folders_and_no_answer(
    cluster: PretendedSlurm, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = (str(Path().absolute() / ".seen-1"),)
    cluster.answers(versions={**errands.versions(), "python": "3.1"}, unseen=gone)
    code, found = doctor(capsys)
    assert code == cli.INTERNAL
    assert not found["node software"]["ok"]
    assert not found["node software"]["needed"]
    assert "n1 has python 3.1 (here " in found["node software"]["text"]
    assert "choose --runs on a file system" in found["node runs"]["text"]
    cluster.fails(1)
    code, found = doctor(capsys)
    assert code == cli.INTERNAL
    assert "ImportError: no torch" in found["node"]["text"]
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(Path("small.toml") / "cache"))
    code, found = doctor(capsys)
    assert code == cli.INTERNAL
    assert "small.toml" in found["folders"]["text"]
    monkeypatch.setenv("PATH", "/nowhere")
    code, found = doctor(capsys)
    assert code == cli.INTERNAL
    assert "no program sbatch, squeue" in found["SLURM"]["text"]


def test_doctor_knows_the_engines_of_this_machine_and_refuses_others(capsys: Out) -> None:
    run("doctor", "--engine", "inline")
    assert "data cache" in capsys.readouterr().out
    assert run("doctor", "--engine", "lap") == cli.USAGE
    assert "did you mean 'lab'?" in capsys.readouterr().err
