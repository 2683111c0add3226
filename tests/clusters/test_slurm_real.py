"""A real SLURM of three nodes on this machine: bits, adoption, preemption, kills, stops, doctor."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_study import LONG, PROGRAM, ROOT, ablate, first, same_bits, wait_for, words, written

from sagan_bench.execution.engines._slurm import endings
from sagan_bench.execution.engines._slurm.queue import end_of, submit
from sagan_bench.runs.records import Status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))),
        reason="needs root and: apt-get install --no-install-recommends slurm-wlm munge",
    ),
]
HERE = Path(__file__).parent
SLURM = ("--engine", "slurm", "--slurm", "partition=low,time=10")
NO_AUTO = (
    "--set", "training.precision=fp32", "--set", "evaluation.extractor=efficientnet-lite0",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "PORT": "27300", "GRACE_SEC": "5", "KILL_WAIT_SEC": "8"}
    subprocess.run([HERE / "slurm_up.sh", folder], env=environment, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(ROOT))
        yield
        subprocess.run([HERE / "slurm_down.sh", folder], check=True)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return written(tmp_path)


def queue() -> list[str]:
    said = subprocess.run(
        ["squeue", "-h", "-r", "-o", "%F_%K %T"], capture_output=True, text=True, check=True
    )
    return said.stdout.splitlines()


def steps(study: Path, task: int, batch: int = 1) -> int:
    """How many messages of steps a run has sent."""
    file = study / ".slurm" / f"{batch}-{task}.events"
    return file.read_text().count('"step": [') if file.exists() else 0


def preempt(folder: Path) -> None:
    """Have all nodes taken away for a while by somebody who may do so."""
    (folder / "high.sh").write_text("#!/bin/bash\nsleep 15\n")
    subprocess.run(
        ["sbatch", "-p", "high", "-N3", "--exclusive", "-t1", "-o/dev/null", folder / "high.sh"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_bits_are_those_of_processes_although_the_driver_was_killed(study: Path) -> None:
    driver = subprocess.Popen(words(*SLURM), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: any(steps(study, task) for task in range(6)))
    driver.kill()
    driver.wait()
    ablate(*SLURM)
    assert [*(study / ".slurm").glob("*.jobs")] == [study / ".slurm" / "1.jobs"]  # adopted
    ablate("--jobs", "2", "--name", "here")
    assert same_bits(study.with_name("here"), study)


def test_preempted_put_back_killed_and_stopped(study: Path) -> None:
    ablate(*SLURM, *LONG, "--detach")
    driver = subprocess.Popen(
        words(*SLURM, *LONG), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    wait_for(lambda: steps(study, 0) >= 2 and steps(study, 1))
    preempt(study.parent)
    wait_for(lambda: first(study).status is Status.INTERRUPTED)
    assert first(study).reason == "preempted or cancelled in SLURM"
    kept = first(study).step
    assert kept > 0
    wait_for(lambda: len(first(study).attempts) == 2)  # at once, not after two minutes
    assert first(study).attempts[1].from_step == kept
    before = steps(study, 0)
    wait_for(lambda: steps(study, 0) > before)
    holder = (next(study.glob("no-attention-s0-*")) / ".holder.json").read_text()
    os.kill(int(holder.split('"pid": ')[1].split(",")[0].split("}")[0]), signal.SIGKILL)
    wait_for(lambda: steps(study, 0, batch=2))  # lost, and run again
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130
    assert "go on without this command" in said
    assert len([line for line in queue() if "RUNNING" in line]) == 2
    ablate(*SLURM, *LONG, "--stop")
    assert not queue()
    assert first(study).status is Status.INTERRUPTED
    assert (first(study).attempts[-1].to_step or 0) > kept


def test_preempted_where_slurm_puts_nothing_back_is_handed_over_again(study: Path) -> None:
    frail = ("--engine", "slurm", "--slurm", "partition=frail,time=10", "--only", "no-attention")
    driver = subprocess.Popen(
        words(*frail, *LONG), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: steps(study, 0) >= 2)
    preempt(study.parent)
    wait_for(lambda: steps(study, 0, batch=2))
    before, after = first(study).attempts
    assert before.outcome is Status.INTERRUPTED
    assert after.from_step == before.to_step
    ablate(*frail, *LONG, "--stop")
    assert driver.wait(60) == 3


def test_an_environment_that_is_broken_and_a_refused_partition(study: Path) -> None:
    (study.parent.parent / "engines.toml").write_text(
        '[bad]\nkind = "slurm"\npython = "/no/python"\nsbatch = { time = "1" }\n'
    )
    said = ablate("--engine", "bad", "--jobs", "2", code=2)
    assert "a job on a node left no answer" in said  # it was asked what auto means
    assert "/no/python" in said
    said = ablate("--engine", "bad", "--jobs", "2", *NO_AUTO, code=2)
    assert "the first 3 runs failed before their first step" in said
    assert "/no/python" in said
    said = ablate("--engine", "slurm", "--slurm", "time=1,partition=nope", *NO_AUTO, code=2)
    assert "Invalid partition name specified" in said


def test_doctor_asks_a_node_and_tells_a_folder_that_it_cannot_write(study: Path) -> None:
    doctor = [*PROGRAM, "doctor", *SLURM, "--json"]
    done = subprocess.run(doctor, capture_output=True, text=True, check=False, timeout=100)
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert "takes --partition=low --time=10" in found["sbatch"]["text"]
    assert found["arrays"]["text"] == "of up to 10,000 runs"
    assert all(found[f"node {name}"]["ok"] for name in ("software", "runs", "cache", "device"))
    assert "a node of slurm is asked: on n" in done.stderr
    assert not queue()
    more = [*PROGRAM, "doctor", "--engine", "slurm", "--slurm", "time=1,partition=nope", "--json"]
    done = subprocess.run(more, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "nvalid partition" in json.loads(done.stdout)[1]["text"]


def test_a_log_that_a_node_cannot_write_is_a_folder_that_it_does_not_see(tmp_path: Path) -> None:
    script = tmp_path / "quick.sh"
    script.write_text("#!/bin/bash\ntrue\n")
    array = submit(script, ["--array=0-0", "--time=1", f"--output={tmp_path}/none/x.log"])
    wait_for(lambda: not queue())
    assert "the folder of the runs is not seen there" in endings.words(end_of(f"{array}_0"))
