"""What a study costs beside training and scoring, and how soon a finished one is recognised.

python benchmarks/study.py overhead
python benchmarks/study.py recognise
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import typer

from sagan_bench.config.layers import parse_set
from sagan_bench.config.schema import Host
from sagan_bench.core import cpu
from sagan_bench.execution.engines.inline import Inline
from sagan_bench.execution.slots import Slot
from sagan_bench.experiments import ablation, studies
from sagan_bench.experiments.grid import Plan
from sagan_bench.experiments.study import Study

PROGRAM = Path(__file__).parents[1] / "cli.py"
SETS = [
    "run.steps=1", "model.width=32", "evaluation.n_real=256", "evaluation.n_fake=64",
    "evaluation.n_floor=64", "evaluation.bn_batches=2", "run.eval_every=none",
]  # fmt: skip
app = typer.Typer(add_completion=False)


def asked(seeds: int) -> Study:
    """Return the study ``quick`` of one step a cell: two variants at so many seeds."""
    return studies.load("quick", set=dict(map(parse_set, SETS)), seeds=tuple(range(seeds)))


def run(folder: Path, seeds: int) -> Plan:
    """Run the study in this process, and return what it left."""
    here = Host(bf16=False, extractor="efficientnet-lite0")
    planned = ablation.with_data(ablation.plan(asked(seeds), folder, lambda config: here))
    slot = Slot("cpu", cpu.cores(), 1)
    ablation.run(planned, Inline([slot]), lambda point, what: None, lambda: None)
    return planned.refreshed()


@app.command()
def overhead(points: int = 40) -> None:
    """Seconds a cell of one step takes beside that step and its scoring."""
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "warm", 1)  # data, reference features, kernels
        began = time.perf_counter()
        planned = run(Path(folder) / "study", points // 2)
        taken = time.perf_counter() - began
    costs = [point.record.cost for point in planned.points if point.record]
    trained = sum(cost.train_sec or 0 for cost in costs)
    scored = sum(cost.score_sec or 0 for cost in costs)
    report(
        "overhead",
        points=len(costs),
        seconds_a_cell_beside=round((taken - trained - scored) / len(costs), 4),
        seconds_a_cell_trained=round(trained / len(costs), 4),
        seconds_a_cell_scored=round(scored / len(costs), 4),
    )


@app.command()
def recognise(points: int = 100, repeats: int = 5) -> None:
    """Seconds of the whole command ``ablate`` on a study that is finished."""
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "quick", points // 2)
        sets = [part for text in SETS for part in ("--set", text)]
        command = [sys.executable, str(PROGRAM), "ablate", "--runs", folder, *sets]
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
    report("recognise", points=points, median_sec=round(statistics.median(times), 3))


def report(benchmark: str, **figures: float) -> None:
    """Print what was measured, and where."""
    machine = {"torch": torch.__version__, "cpu": cpu.name(), "cores": cpu.cores()}
    print(json.dumps({"benchmark": benchmark, **figures, **machine}, indent=2))


if __name__ == "__main__":
    app()
