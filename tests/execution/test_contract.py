"""What all engines promise, whoever they are: the same runs, ends and reasons."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from example_studies import here, small_study
from pretended_ray import PretendedRay
from pretended_ray import cluster as ray_cluster
from pretended_slurm import PretendedSlurm, cluster

from sagan_bench.core.registry import ENGINES
from sagan_bench.execution import engines
from sagan_bench.execution.engine import Ended, Engine, Place
from sagan_bench.execution.engines._ray import porter
from sagan_bench.execution.engines._ray.settings import Settings as RaySettings
from sagan_bench.execution.engines._slurm.settings import Settings
from sagan_bench.execution.engines.processes import Processes
from sagan_bench.execution.profiles import Profile
from sagan_bench.experiments import ablation
from sagan_bench.experiments.grid import GridPoint, Plan
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Scored
from sagan_bench.training import checkpoint
from sagan_bench.training.loop import Step

__all__ = ["cluster", "ray_cluster"]
SHIPPED = ("inline", "processes", "ray", "slurm")
CELLS = ("no-attention-s0", "sagan-s0")
ALL = [
    "inline",
    pytest.param("processes", marks=pytest.mark.slow),
    pytest.param("ray", marks=pytest.mark.slow),
    pytest.param("slurm", marks=pytest.mark.slow),
]
Opening = Callable[[str, Plan], Engine]


@pytest.fixture
def opening(
    cluster: PretendedSlurm, ray_cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opening]:
    """Returns an engine of a kind for a plan, which is closed in the end; its runs are real."""
    monkeypatch.setattr(porter, "Processes", Processes)
    with ExitStack() as stack:

        def opened(kind: str, plan: Plan) -> Engine:
            real = Settings(sbatch={"time": 10}, python=sys.executable)
            profile = Profile(kind, {"slurm": real, "ray": RaySettings()}.get(kind))
            place = Place(plan.folder, "cpu", 2, len(plan.points))
            return stack.enter_context(closing(engines.opened(profile, place, lambda: None)))

        yield opened


def planned(folder: Path, *sets: str, **chosen: Any) -> Plan:
    study = small_study(folder, *sets)
    return ablation.with_data(ablation.plan(study, folder / "s", here, **chosen))


def run(
    plan: Plan, engine: Engine, stop: Callable[[GridPoint, Any], None] = lambda run, what: None
) -> list[tuple[str, Any]]:
    events = list[tuple[str, Any]]()

    def watch(point: GridPoint, what: Any) -> None:
        events.append((point.id, what))
        stop(point, what)

    ablation.run(plan, engine, watch, lambda: None)
    return events


def test_every_engine_says_whether_its_runs_outlive_it() -> None:
    assert {name: ENGINES[name].detaches for name in SHIPPED} == {
        "inline": False, "processes": False, "ray": False, "slurm": True,
    }  # fmt: skip


@pytest.mark.slow
def test_every_engine_leaves_the_same_bits_and_tells_of_the_same(
    tmp_path: Path, opening: Opening
) -> None:
    left = dict[str, dict[str, torch.Tensor]]()
    for kind in SHIPPED:
        (tmp_path / kind).mkdir()
        plan = planned(tmp_path / kind, seeds=(0,))
        events = run(plan, opening(kind, plan))
        ends = {name: what for name, what in events if isinstance(what, Ended)}
        assert ends == dict.fromkeys(CELLS, Ended(Status.FINISHED, None))
        scored = {name for name, what in events if isinstance(what, Scored) and what.score.final}
        assert scored == {*CELLS}
        assert [name for name, what in events if what is None] == [*CELLS]
        records = [point.record for point in plan.refreshed().points if point.record]
        jobs = [record.attempts[-1].job for record in records]
        assert (
            jobs == ["1_0", "1_1"] if kind == "slurm" else all(map(bool, jobs)) == (kind == "ray")
        )
        assert {record.attempts[-1].engine for record in records} == {kind}
        logs = [*plan.folder.glob("*/log.txt")]
        assert len(logs) == 2
        assert all(log.read_text().endswith("\n--- finished\n") for log in logs)
        left[kind] = {
            f"{point.id}.{name}": value
            for point in plan.points if point.seed == 0
            for name, value in checkpoint.load(point.path / "weights.pt")["raw"].items()
        }  # fmt: skip
    for kind in SHIPPED:
        assert left[kind].keys() == left["inline"].keys()
        assert all(torch.equal(left[kind][name], value) for name, value in left["inline"].items())


@pytest.mark.parametrize("kind", ALL)
def test_a_run_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, opening: Opening, kind: str
) -> None:
    plan = planned(tmp_path, "run.steps=2", seeds=(0,))
    plan.points[0].path.mkdir(parents=True)
    (plan.points[0].path / "thesis.tex").write_text("somebody's own")
    ends = {name: what for name, what in run(plan, opening(kind, plan)) if isinstance(what, Ended)}
    assert ends["no-attention-s0"].status is Status.FAILED
    assert "holds files but neither" in str(ends["no-attention-s0"].reason)
    assert ends["sagan-s0"].status is Status.FINISHED


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["processes", "ray", "slurm"]
)  # a run in this process hears of nothing
def test_a_run_that_is_cancelled_keeps_a_checkpoint_and_the_reason(
    tmp_path: Path, opening: Opening, kind: str
) -> None:
    plan = planned(tmp_path, "run.steps=100000", seeds=(0,), only=("sagan",))
    engine = opening(kind, plan)

    def stop(point: GridPoint, what: Any) -> None:
        if isinstance(what, Step):
            engine.cancel(point.id, "pruned")

    events = run(plan, engine, stop)
    assert events[-1] == ("sagan-s0", Ended(Status.INTERRUPTED, "pruned"))
    record = plan.refreshed().points[1].record
    assert record is not None
    assert (record.status, record.reason) == (Status.INTERRUPTED, "pruned")
    assert [*(plan.points[1].path / "checkpoints").glob("*.ckpt")]
