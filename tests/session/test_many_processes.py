"""One run on many processes: what they share, what they compute, and how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import command_line
import pytest
import torch
import torch.distributed as dist
from example_runs import SMALL
from parallel_worker import batchnorm_case, normalised, trained
from torch import Tensor

import sagan_bench
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import distributed
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.runs import records
from sagan_bench.runs.run_directory import read_now
from sagan_bench.session import experiment
from sagan_bench.session.capabilities import on_this_rank
from sagan_bench.session.resuming import newest_checkpoint
from sagan_bench.training.checkpoint import Checkpoints

HOST = Host(bf16=False, extractor="efficientnet-lite0")
RESNET = ["model.architecture=resnet", "model.classes=10"]
NETWORKS = ("generator", "discriminator")
TRAINED = [
    *SMALL, "training.batch_size=8", "training.precision=fp64", "data.flip=true", "run.log_every=1",
    "run.steps=20",
]  # fmt: skip


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*TRAINED, *sets]).config


def plain(*sets: str) -> list[str]:
    return [*sets, *(f"model.spectral_norm.{network}=none" for network in NETWORKS)]


SHARED = {"resnet": RESNET, "dcgan": [], "gp": plain("training.loss=wgan-gp")}
CASES = {
    2: {
        **SHARED, "all at once": [*RESNET, "training.micro_batch=4", "training.n_critic=2"],
        "fp32": [*RESNET, "training.precision=fp32", "run.steps=1"],
    },
    4: SHARED,
}  # fmt: skip
"""Number of processes -> what they train, one after the other, in one start."""


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """Return what the main one of so many processes wrote of its cases."""
    folder = tmp_path_factory.mktemp("processes")
    return cache(lambda count: written(count, folder / f"{count}.pt"))


def written(count: int, out: Path) -> Any:
    configs = {name: make(*sets).model_dump(mode="json") for name, sets in CASES[count].items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    command = [sys.executable, str(Path(__file__).parents[1] / "parallel_worker.py")]
    command += [json.dumps(configs), str(out)]
    started = [
        subprocess.Popen(command, env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(count))
    ]
    try:
        assert [process.wait(600) for process in started] == [0] * count
    finally:
        for process in started:
            process.kill()
    return torch.load(out, weights_only=True)


def tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield from tensors(value, f"{name}.{key}")


def assert_alike(one: Any, many: Any, within: float) -> None:
    first, second = dict(tensors(one)), dict(tensors(many))
    assert first.keys() == second.keys()
    assert any(name.startswith(".optimizer_d") for name in first)
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=within), name


def compare(many: Any, *sets: str) -> None:
    """Compare the training of several processes with one process's."""
    one = trained(make(*sets))
    assert_alike(one["state"], many["state"], 1e-8)
    for mine, theirs in zip(one["rows"], many["rows"], strict=True):  # type: ignore[call-overload]
        for key in mine.keys() - {"images_per_sec"}:
            assert theirs[key] == pytest.approx(mine[key], abs=1e-8), key


@pytest.mark.slow
def test_two_processes_are_one(by_processes: Callable[[int], Any]) -> None:
    """In 20 steps of two updates of D each, with classes, mirrored images and micro-batches."""
    many = by_processes(2)
    compare(many["runs"]["all at once"], *CASES[2]["all at once"])

    expected = normalised(*batchnorm_case())
    for name, value in expected.items():
        found = many["norm"][name]
        assert torch.allclose(value.double(), found.double(), atol=1e-8), name
    assert many["said"] == {
        "broadcast": 5, "all_reduce_min": 4, "nothing": None, "any_rank": "terminated",
        "nobody": None,
        "gather": [0, 1, 2, 3, 4, 5, 6],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("count", [2, 4])
def test_many_processes_are_one(count: int, name: str, by_processes: Callable[[int], Any]) -> None:
    compare(by_processes(count)["runs"][name], *SHARED[name])


@pytest.mark.slow
def test_the_first_losses_are_those_of_one_process_in_fp32(
    by_processes: Callable[[int], Any],
) -> None:
    many, one = by_processes(2)["runs"]["fp32"], trained(make(*CASES[2]["fp32"]))
    for name in ("loss_d", "loss_g"):
        assert many["rows"][0][name] == pytest.approx(one["rows"][0][name], abs=1e-6)  # type: ignore[index]


def test_processes_share_each_micro_batch() -> None:
    whole = torch.arange(12)
    first, second = (DistributedContext(rank, 2) for rank in range(2))
    assert first.part(whole).tolist() == [0, 1, 2, 3, 4, 5]
    assert second.part(whole, 4).tolist() == [2, 3, 6, 7, 10, 11]
    assert first.part(torch.zeros(12, 3), 6).shape == (6, 3)
    assert distributed.SINGLE_PROCESS.part(whole, 4) is whole
    assert [DistributedContext(rank, 3).span(7) for rank in range(3)] == [(0, 2), (2, 4), (4, 7)]


@pytest.mark.parametrize(
    ("sets", "told"),
    [(["training.batch_size=10"], "batch_size = 10"), (["training.micro_batch=2"], "micro_batch")],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(sets: list[str], told: str) -> None:
    with pytest.raises(UserError, match=rf"{told}.*among 4 processes; choose a multiple of 4"):
        on_this_rank(make(*sets), DistributedContext(0, 4, 0, 4))


def test_networks_that_would_be_compiled_in_pieces_are_refused() -> None:
    with pytest.raises(UserError, match=r"compile with 2 processes.*#161302.*leave out --compile"):
        on_this_rank(make("training.compile=true"), DistributedContext(0, 2, 0, 2))
    on_this_rank(make("training.compile=true"), distributed.SINGLE_PROCESS)


def test_a_step_of_several_processes_is_not_captured() -> None:
    captured = make("training.cuda_graph=true")
    with pytest.raises(UserError, match=r"cuda_graph with 2 processes.*leave out training\.cuda_g"):
        on_this_rank(captured, DistributedContext(0, 2, 0, 2))
    on_this_rank(captured, distributed.SINGLE_PROCESS)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error "
                     "[127.0.0.1]:4242: Connection reset by peer. This is typically caused by"),
        RuntimeError("[../gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:4242."),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv"),
        dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or "
                              "there was a network error, NCCL version 2.27.5\nncclRemoteError"),
        dist.DistBackendError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL("),
        dist.DistNetworkError("The client socket has timed out after 60000ms"),
        dist.DistStoreError("Timed out after 7 seconds waiting for clients. 1/2 clients joined."),
    ],
    ids=lambda error: str(error)[-30:],
)  # fmt: skip
def test_a_lost_peer_is_recognised(error: Exception) -> None:
    assert distributed.is_lost_peer(error)


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error in: NCCLUtils.cpp:77, unhandled cuda error\n"
                              "Cuda failure 2 'out of memory'"),
        dist.DistBackendError("ncclInvalidUsage: This usually reflects invalid usage of NCCL"),
        dist.DistBackendError("ncclUnhandledCudaError: Call to CUDA function failed."),
        dist.DistBackendError("ncclSystemError: System call (e.g. socket, malloc) or external"),
        RuntimeError("[gloo/transport/tcp/pair.cc] op.preamble.length <= op.nbytes. 8 vs 4"),
        RuntimeError("Detected mismatch between collectives on ranks, with gloo"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ConnectionResetError("Connection reset by peer"),
    ],
    ids=lambda error: str(error)[-30:],
)  # fmt: skip
def test_no_other_error_is_called_a_lost_peer(error: Exception) -> None:
    assert not distributed.is_lost_peer(error)


def test_processes_that_cannot_be_connected_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in (world | {"TORCHELASTIC_RUN_ID": "test"}).items():
            monkeypatch.setenv(name, value)
        expected = pytest.raises(UserError, match=r"cannot be connected: .*EADDRINUSE")
        with expected, distributed.joined("cpu"):
            pass


def test_without_torchrun_a_process_is_alone() -> None:
    with distributed.joined("cpu") as context:
        assert context == distributed.SINGLE_PROCESS


# Whole runs


def test_every_process_makes_the_same_exchanges_and_the_main_one_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 is here without a rank 0: it gets its own values back."""
    calls: dict[int, list[str]] = {0: [], 1: []}
    for name in ("broadcast", "all_reduce_min", "all_reduce_mean", "gather"):
        exchange = getattr(DistributedContext, name)

        def noted(self: Any, *given: Any, name: str = name, exchange: Any = exchange) -> Any:
            calls[self.rank].append(name)
            return exchange(self, *given)

        monkeypatch.setattr(DistributedContext, name, noted)
    sets = ["evaluation.extractor=efficientnet-lite0", "run.eval_every=2", "run.eval_images=10"]
    sets.append('run.score_weights=["ema", "raw"]')
    config = make(*sets, "run.steps=4", "run.sample_every=3", "run.checkpoint_every=2")
    seen: list[object] = []
    for rank in calls:
        context, out = DistributedContext(rank), tmp_path / str(rank)
        watch = (lambda event: None) if rank == 0 else seen.append
        record = experiment.run(config, out=out, watch=watch, context=context)
        assert (record.status, record.step) == ("finished", 4)
        assert out.exists() == (rank == 0)
    assert calls[0] == calls[1]
    assert calls[0].count("gather") >= 12  # images, features and logits of four sample sets
    assert not seen


def test_a_checkpoint_that_the_others_do_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    Checkpoints(tmp_path / "checkpoints").save(4, {"step": 4})
    context = DistributedContext(rank=1)
    steps = iter([4, 6, 0])  # the main process's
    monkeypatch.setattr(DistributedContext, "broadcast", lambda self, value: next(steps))
    assert newest_checkpoint(tmp_path, 6, context) == {"step": 4}
    with pytest.raises(UserError, match=r"checkpoint of step 6 is not in .* one folder of runs"):
        newest_checkpoint(tmp_path, 6, context)
    assert newest_checkpoint(tmp_path, 6, context) is None


def arguments(out: Path, steps: int) -> list[str]:
    sets = [*TRAINED, *RESNET, "run.keep_training_state=true", f"run.steps={steps}"]
    sets += ["evaluation.extractor=efficientnet-lite0", "run.eval_every=10", "run.eval_images=10"]
    return ["train", "--out", str(out), *(part for text in sets for part in ("--set", text))]


def command(count: int, out: Path, steps: int) -> list[str]:
    train = arguments(out, steps)
    if count == 1:
        return [sys.executable, "-c", "from sagan_bench.cli import main; main()", *train]
    shim = out.with_suffix(".py")
    shim.write_text("from sagan_bench.cli import main\nmain()\n")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), str(shim)]
    return [sys.executable, *launch, *train]


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(sagan_bench.__file__).parent.parent),
    }


def children(pid: int) -> list[int]:
    text = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True)
    return [int(word) for word in text.stdout.split()]


@contextmanager
def started(count: int, command: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes of one run without torchrun, which would end what is left of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_PORT": port}
    world |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = []
        for rank in map(str, range(count)):
            mine = environment() | world | {"RANK": rank, "LOCAL_RANK": rank}
            process = stack.enter_context(subprocess.Popen(command, env=mine, **pipes))
            stack.callback(process.kill)
            processes.append(process)
        yield processes


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_peer_ends_the_other_within_two_minutes(victim: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 300
    with started(2, command(1, run, 4000)) as processes:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 6:
            assert [process.poll() for process in processes] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes[victim].kill()
        _, told = processes[1 - victim].communicate(timeout=120)
        assert processes[1 - victim].returncode == 2
    assert "another process of this run is gone; the same command goes on" in told
    assert read_now(run).status == "interrupted"


PATIENT = """
import datetime, os, signal, sys, time, torch
from dataclasses import replace
import torch.distributed as dist
from sagan_bench.core import distributed
context = distributed.DistributedContext(int(os.environ["RANK"]), 2)
context = replace(context, cpu_group=distributed._connected("gloo", datetime.timedelta(seconds=3)))
assert context.all_reduce_mean(torch.ones(1)) == 1
if context.is_main_process:
    time.sleep(6)  # as one that scores
assert context.broadcast(7 + context.rank) == 7
context.barrier()
if not context.is_main_process:
    os.kill(os.getpid(), signal.SIGSTOP)
began = time.monotonic()
try:
    context.all_reduce_mean(torch.ones(1))
except RuntimeError as error:
    print(distributed.is_lost_peer(error), time.monotonic() - began)
    sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_a_step_waits_shortly_and_the_group_of_the_cpu_patiently() -> None:
    with started(2, [sys.executable, "-c", PATIENT]) as processes:
        told, errors = processes[0].communicate(timeout=120)
    lost, seconds = told.split()
    assert lost == "True", errors
    assert 2 < float(seconds) < 30


@pytest.mark.slow
def test_a_dead_process_takes_the_run_down_and_other_numbers_go_on(tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    assert command_line.run(*arguments(alone, 40)) == 0

    # One of two dies.
    launcher = subprocess.Popen(command(2, run, 40), env=environment(), start_new_session=True)
    deadline = time.monotonic() + 300
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 6:
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(max(children(launcher.pid)), signal.SIGKILL)
    assert launcher.wait(120) != 0
    assert read_now(run).status == "interrupted"

    # Alone up to a part, then by four to the end.
    assert command_line.run(*arguments(run, 25)) == 0
    subprocess.run(command(4, run, 40), env=environment(), check=True)
    record = records.read(run)
    assert [attempt.processes for attempt in record.attempts] == [2, 1, 4]
    assert record.status == "finished"
    ours, theirs = (Checkpoints(path / "checkpoints").latest() for path in (alone, run))
    assert ours
    assert theirs
    assert ours[0] == theirs[0] == 40
    assert_alike(ours[1], theirs[1], 1e-8)
    scores = {(s.step, s.weights): s for s in record.scores}  # and those at step 25, its first end
    for one in records.read(alone).scores:
        score = scores[one.step, one.weights]
        assert score.fingerprint == one.fingerprint
        assert score.metrics["fid"] == pytest.approx(one.metrics["fid"], rel=1e-2)
    rows = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert rows == list(range(1, 41))
