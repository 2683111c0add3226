"""A real Ray of three nodes on this machine: bits, adoption, lost actors and nodes, stops."""

import importlib.util
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_study import (
    LONG,
    PROGRAM,
    ROOT,
    SECONDS_OF_A_COMMAND,
    ablate,
    first,
    same_bits,
    wait_for,
    words,
    written,
)

from sagan_bench.execution.losses import record_of
from sagan_bench.runs.records import Record, Status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs: pip install ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
QUIET = {
    "RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip

THEIRS = """
question = "Does it run?"
baseline = "slow"
variants = ["fast"]
seeds = [0, 1]
[on.other]
metric = "loss"
better = "lower"
min_effect = 0.1
"""


class Nodes:
    """A head without cores, and two nodes of two cores, begun in a folder."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        own = {"object_store_memory": 120 << 20}
        self.own: dict[str, Any] = {**own, "num_cpus": 2}
        with chdir(folder):
            self.cluster: Any = Cluster(initialize_head=True, head_node_args={**own, "num_cpus": 0})
        self.nodes = [self._joined() for _ in range(2)]

    def _joined(self) -> Any:
        with chdir(self.folder):
            return self.cluster.add_node(**self.own)

    def lose(self, pid: int) -> None:
        """Have the node end at once that holds a process, and another join."""
        ours = {node.all_processes["raylet"][0].process.pid: node for node in self.nodes}
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        (raylet,) = above & ours.keys()
        self.nodes.remove(ours[raylet])
        self.cluster.remove_node(ours[raylet], allow_graceful=False)
        self.nodes.append(self._joined())


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        started = Nodes(tmp_path_factory.mktemp("elsewhere"))
        yield started
        started.cluster.shutdown()


@pytest.fixture
def study(tmp_path: Path, nodes: Nodes) -> Path:
    profile = f'[lab]\nkind = "ray"\naddress = "{nodes.cluster.address}"\njobs = 2\n'
    (tmp_path / "engines.toml").write_text(profile)
    return written(tmp_path)


def begin(*more: str) -> subprocess.Popen[str]:
    """Give the command, and go on."""
    return subprocess.Popen(
        words("--engine", "lab", *more),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def records(study: Path) -> list[Record]:
    return [record for path in study.glob("*-s*") if (record := record_of(path))]


def steps(study: Path) -> int:
    """How many rows of metrics the first run has."""
    (path,) = study.glob("no-attention-s0-*")
    file = path / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def worker(study: Path) -> int:
    """The process that has the first run."""
    (path,) = study.glob("no-attention-s0-*")
    return int(json.loads((path / ".holder.json").read_bytes())["pid"])


def test_bits_are_those_of_processes_although_the_driver_was_killed(study: Path) -> None:
    driver = begin()
    wait_for(lambda: len(records(study)) >= 2)
    driver.kill()
    driver.communicate()
    ablate("--engine", "lab")
    assert [len(record.attempts) for record in records(study)] == [1] * 6  # adopted
    assert not (study / ".ray" / "cluster.json").exists()
    assert {record.environment.command.split()[1] for record in records(study)} == {"ablate"}
    ablate("--jobs", "1", "--name", "here")
    assert same_bits(study.with_name("here"), study)


def test_cells_are_where_the_command_was_given(tmp_path: Path, study: Path) -> None:
    (tmp_path / "tiny.toml").write_text(THEIRS)
    (tmp_path / "program.sh").write_text('echo \'{"metrics": {"loss": 0.5}}\' > "$1"/result.json\n')
    command = "sh program.sh {out} {seed} {variant}"
    where = ("--engine", "lab", "--device", "cpu", "--runs", "runs", "--name", "small")
    done = subprocess.run(
        [*PROGRAM, "ablate", "tiny.toml", "--command", command, *where],
        capture_output=True, text=True, check=False, timeout=SECONDS_OF_A_COMMAND,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [record.status for record in records(study)] == [Status.FINISHED] * 4


def attempts(study: Path, number: int) -> Callable[[], bool]:
    return lambda: len(first(study).attempts) == number


def test_a_lost_actor_a_lost_node_ctrl_c_and_stop(study: Path, nodes: Nodes) -> None:
    driver = begin(*LONG, "--only", "no-attention")
    wait_for(lambda: records(study) and steps(study) >= 2)
    porter = psutil.Process(worker(study)).ppid()
    os.kill(porter, signal.SIGKILL)
    wait_for(attempts(study, 2))
    kept = first(study).attempts[1].from_step
    assert kept > 0  # the worker had time for its checkpoint
    before = steps(study)
    wait_for(lambda: steps(study) > before)
    nodes.lose(worker(study))
    wait_for(attempts(study, 3))
    before = steps(study)
    wait_for(lambda: steps(study) > before)
    driver.send_signal(signal.SIGINT)
    out, said = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "no-attention-s0 is run again: its actor in Ray was ended" in said
    assert "no-attention-s0 is run again: its node is gone" in said
    assert "raylet" not in out + said
    assert (first(study).status, first(study).reason) == (Status.INTERRUPTED, "interrupted")
    assert (first(study).attempts[-1].to_step or 0) > kept
    driver = begin(*LONG, "--only", "no-attention")
    wait_for(attempts(study, 4))
    before = steps(study)
    wait_for(lambda: steps(study) > before)
    driver.kill()
    driver.communicate()
    ablate("--stop")
    assert (first(study).status, first(study).reason) == (Status.INTERRUPTED, "interrupted")
    assert (first(study).attempts[-1].to_step or 0) > first(study).attempts[-1].from_step
    assert not (study / ".ray" / "cluster.json").exists()
