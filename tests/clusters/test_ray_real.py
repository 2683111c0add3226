"""A real Ray of three nodes on this machine: bits, adoption, lost actors and nodes, stops."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.execution.losses import record_of
from sagan_bench.runs.records import Record, Status
from sagan_bench.training import checkpoint

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs: pip install ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
ROOT = Path(cli.__file__).parents[2]
LONG = ("--set", "run.steps=200000", "--set", "run.checkpoint_every=100000", "--seeds", "0")
QUIET = {
    "RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip


class Nodes:
    """A head without cores, and two nodes of two cores."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        own = {"object_store_memory": 120 << 20}
        self.own: dict[str, Any] = {**own, "num_cpus": 2}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={**own, "num_cpus": 0})
        self.nodes = [self.cluster.add_node(**self.own) for _ in range(2)]

    def lose(self, pid: int) -> None:
        """Have the node end at once that holds a process, and another join."""
        ours = {node.all_processes["raylet"][0].process.pid: node for node in self.nodes}
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        (raylet,) = above & ours.keys()
        self.nodes.remove(ours[raylet])
        self.cluster.remove_node(ours[raylet], allow_graceful=False)
        self.nodes.append(self.cluster.add_node(**self.own))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        started = Nodes()
        yield started
        started.cluster.shutdown()


@pytest.fixture
def study(tmp_path: Path, nodes: Nodes) -> Path:
    (tmp_path / "small.toml").write_text(FILE.replace("[0, 1]", "[0, 1, 2]"))
    profile = f'[lab]\nkind = "ray"\naddress = "{nodes.cluster.address}"\njobs = 2\n'
    (tmp_path / "engines.toml").write_text(profile)
    return tmp_path / "runs" / "small"


def words(*more: str) -> list[str]:
    sets = [part for text in SMALL for part in ("--set", text)]
    program = [sys.executable, "-c", "from sagan_bench import cli; cli.main()"]
    return [*program, "ablate", "small.toml", *sets, *more]


def ablate(*more: str, code: int = 0) -> str:
    """Give the command, and return what it remarked."""
    done = subprocess.run(words(*more), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == code, done.stderr
    return done.stderr


def begin(*more: str) -> subprocess.Popen[str]:
    """Give the command, and go on."""
    return subprocess.Popen(
        words("--engine", "lab", *more),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(happened: Callable[[], object], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def records(study: Path) -> list[Record]:
    return [record for path in study.glob("*-s*") if (record := record_of(path))]


def first(study: Path) -> Record:
    (record,) = [record for record in records(study) if record.variant == "no-attention"]
    return record


def steps(study: Path) -> int:
    """How many rows of metrics the first run has."""
    (path,) = study.glob("no-attention-s0-*")
    file = path / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def worker(study: Path) -> int:
    """The process that has the first run."""
    (path,) = study.glob("no-attention-s0-*")
    return int(json.loads((path / ".holder.json").read_bytes())["pid"])


def weights(study: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.parent.name: {
            f"{kind}.{name}": value
            for kind in ("ema", "raw") for name, value in checkpoint.load(path)[kind].items()
        }
        for path in study.glob("*/weights.pt")
    }  # fmt: skip


def test_bits_are_those_of_processes_although_the_driver_was_killed(study: Path) -> None:
    driver = begin()
    wait_for(lambda: len(records(study)) >= 2)
    driver.kill()
    driver.communicate()
    ablate("--engine", "lab")
    assert [len(record.attempts) for record in records(study)] == [1] * 6  # adopted
    assert not (study / ".ray" / "cluster.json").exists()
    ablate("--jobs", "1", "--name", "here")
    ours, theirs = weights(study.with_name("here")), weights(study)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for name, tensors in ours.items():
        assert all(torch.equal(tensors[key], theirs[name][key]) for key in tensors)


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
