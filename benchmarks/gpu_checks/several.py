"""Several processes on one card, and several cards."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from shared import (
    BF16,
    DEVICE,
    SMALL,
    Figures,
    command_line,
    compare_losses,
    need_cards,
    on_twins,
    record_of,
    require,
    rows_of,
)

COUNTS = (1, 2, 4, 8)
COUNTED_SEC = 5.0
SERVICE = "nvidia-cuda-mps-control"


def processes(found: Figures) -> None:
    """Steps a second of all processes together, time-sliced and under the service."""
    found["steps_per_sec"] = {count: together(count, os.environ) for count in COUNTS}
    if not shutil.which(SERVICE):
        found["service"] = f"{SERVICE} is not there"
        return
    with ExitStack() as stack:
        try:
            environment = stack.enter_context(service())
        except subprocess.SubprocessError as error:
            found["service"] = f"not started: {error}"
            return
        under = {count: together(count, environment) for count in COUNTS}
        found["steps_per_sec under the service"] = under
    asked = control("get_server_list", environment)
    require(asked.returncode != 0, "the service is still there")
    found["service"] = "stopped"


def together(count: int, environment: Mapping[str, str]) -> float:
    """Return the steps a second of so many processes that train at the same time."""
    command = [sys.executable, str(Path(__file__).parent), "steps"]
    environment = dict(environment) | {"OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        said = [process.stdout.readline() for process in started if process.stdout]
        require(said == ["ready\n"] * count, f"{count} processes said {said}")
        for process in started:
            print("go", file=process.stdin, flush=True)
        return round(sum(float(process.communicate()[0]) for process in started), 1)


def count_steps() -> None:
    """Say when ready, wait for a word, train for some seconds and print the steps a second."""
    running = on_twins("quick", BF16)
    running.steps(20)
    print("ready", flush=True)
    sys.stdin.readline()
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < COUNTED_SEC:
        running.steps(10)
        count += 10
    print(count / spent)


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """Run a Multi-Process Service of our own, and yield the environment that leads to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | places
        subprocess.run([SERVICE, "-d"], env=environment, check=True, timeout=30)
        try:
            yield environment
        finally:
            control("quit -t 5", environment)


def control(word: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Give the service an order."""
    return subprocess.run(
        [SERVICE], input=f"{word}\n", env=environment, text=True, capture_output=True, timeout=20
    )


def context_placement(found: Figures) -> None:
    """What a study on the second card takes of the first."""
    need_cards(2)
    torch.ones(1, device=DEVICE)  # our own context, before anything is measured
    least = before = torch.cuda.mem_get_info(0)[0]
    study = command_line("ablate", "smoke", "--jobs", 1, "--device", "cuda:1", "--runs", "runs")
    with subprocess.Popen(study) as process:
        while process.poll() is None:
            least = min(least, torch.cuda.mem_get_info(0)[0])
            time.sleep(0.1)
    found["mib_on_the_first_card"] = (before - least) / 2**20
    require(process.returncode == 0, f"the study left with {process.returncode}")
    require(before - least < 50 * 2**20, f"it took {found['mib_on_the_first_card']} MiB")


def two_cards(found: Figures) -> None:
    """The first steps on two cards and on one."""
    need_cards(2)
    spread = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for name, start in (("one", [sys.executable]), ("two", spread)):
        words = command_line("train", *SMALL, "--steps", 10, "--out", name)[1:]
        done = subprocess.run([*start, *words])
        require(done.returncode == 0, f"on {name}: exit {done.returncode}")
        found[name] = record_of(Path(name))["cost"]["images_per_sec"]
    compare_losses(found, rows_of(Path("one")), rows_of(Path("two")), slice(5), 1e-2)
