"""The checks of `first_gpu.py`, each a function that runs in a process of its own.

    python benchmarks/gpu_checks speed       # one check, its result.json in the current folder

A check gets the dictionary that its figures go into, so that they are kept if it fails, and raises
if it fails, or `Skipped`.  Its name is its function's.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from graph import whole_step_graph
from several import context_placement, count_steps, processes, two_cards
from shared import (
    DEVICE,
    Figures,
    Skipped,
)
from speed import compiled_tf32, launches, paper_network, repeatable, scoring, speed
from works import (
    attention_backends,
    gpu_tests,
    identity,
    no_hidden_wait,
    out_of_memory,
    resume,
    study_in_workers,
)

CHECKS: dict[str, Callable[[Figures], None]] = {
    check.__name__: check
    for check in (
        identity, study_in_workers, gpu_tests, no_hidden_wait, attention_backends, out_of_memory,
        resume, speed, compiled_tf32, launches, repeatable, whole_step_graph, processes,
        context_placement, paper_network, scoring, two_cards,
    )
}  # fmt: skip


def machine() -> None:
    """Print the card's name, null if there is none, and the versions of torch and CUDA."""
    there = torch.cuda.is_available()
    name = torch.cuda.get_device_name(DEVICE) if there else None
    print(json.dumps({"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}))


def stopped(number: int, frame: object) -> None:
    """Leave as by an error, so that what must be cleaned up is."""
    sys.exit(f"stopped by signal {number}")


def run(name: str) -> None:
    """Run a check and write ``result.json``: whether it passed, its figures, and its error."""
    signal.signal(signal.SIGTERM, stopped)
    found: Figures = {}
    result: dict[str, Any] = {"pass": False, "found": found}
    try:
        CHECKS[name](found)
        result["pass"] = True
    except Skipped as why:
        result |= {"pass": None, "skipped": str(why)}
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this check's result
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    finally:
        Path("result.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    {"machine": machine, "steps": count_steps}.get(sys.argv[1], lambda: run(sys.argv[1]))()
