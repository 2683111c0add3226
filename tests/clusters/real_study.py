"""What tests of real clusters share: a small study, by the command, and what it leaves."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.execution.losses import record_of
from sagan_bench.runs.records import Record
from sagan_bench.training import checkpoint

ROOT = Path(cli.__file__).parents[2]
PROGRAM = (sys.executable, "-c", "from sagan_bench import cli; cli.main()")
LONG = ("--set", "run.steps=200000", "--set", "run.checkpoint_every=100000", "--seeds", "0")
SECONDS_OF_A_COMMAND = 200


def written(folder: Path) -> Path:
    """Write a study of six runs, and return the folder that it will have."""
    (folder / "small.toml").write_text(FILE.replace("[0, 1]", "[0, 1, 2]"))
    return folder / "runs" / "small"


def words(*more: str) -> list[str]:
    """Return the command."""
    sets = [part for text in SMALL for part in ("--set", text)]
    return [*PROGRAM, "ablate", "small.toml", *sets, *more]


def ablate(*more: str, code: int = 0) -> str:
    """Give the command, and return what it remarked."""
    done = subprocess.run(
        words(*more), capture_output=True, text=True, check=False, timeout=SECONDS_OF_A_COMMAND
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def wait_for(happened: Callable[[], object], seconds: float = 100) -> None:
    """Wait until that is so."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def first(study: Path) -> Record:
    """Return the record of the first run."""
    (path,) = study.glob("no-attention-s0-*")
    record = record_of(path)
    assert record is not None
    return record


def same_bits(ours: Path, theirs: Path) -> bool:
    """Return whether two studies have the same six runs, with the same weights."""
    here, there = _weights(ours), _weights(theirs)
    return here.keys() == there.keys() and len(here) == 6 and all(
        torch.equal(tensors[key], there[name][key])
        for name, tensors in here.items() for key in tensors
    )  # fmt: skip


def _weights(study: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.parent.name: {
            f"{kind}.{name}": value
            for kind in ("ema", "raw") for name, value in checkpoint.load(path)[kind].items()
        }
        for path in study.glob("*/weights.pt")
    }  # fmt: skip
