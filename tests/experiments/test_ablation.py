"""Studies run whole: what is planned, what is there, what failed, and what a kill costs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import example_records
import pytest
import torch
from example_studies import FILE, here, small_study
from machines import local_locks, machine, silent

from sagan_bench.core import locks
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.engines.inline import Inline
from sagan_bench.execution.engines.processes import Processes
from sagan_bench.execution.slots import Slot
from sagan_bench.experiments import ablation, driver, grid, studies
from sagan_bench.experiments.grid import GridPoint, Plan
from sagan_bench.experiments.study import Study
from sagan_bench.runs import records
from sagan_bench.runs.records import Status
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session import experiment, failures, planning, writer
from sagan_bench.session.events import Scored, Stopped
from sagan_bench.training import checkpoint, loop
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.loop import Diverged, Step

SLOT = Slot("cpu", 1, 1)


def planned(asked: Study, folder: Path, **chosen: Any) -> Plan:
    return ablation.with_data(ablation.plan(asked, folder, here, **chosen))


def run(plan: Plan, stop: Callable[[], str | None] = lambda: None) -> list[tuple[str, Any]]:
    """Run in this process; the events."""
    events: list[tuple[str, Any]] = []
    ablation.run(
        plan, Inline([SLOT], stop), lambda point, what: events.append((point.id, what)), stop
    )
    return events


def states(plan: Plan) -> list[str | None]:
    return [point.status for point in plan.refreshed().points]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load(folder / "weights.pt")
    return {f"{k}.{n}": value for k in ("ema", "raw") for n, value in state[k].items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished study, not to be changed by a test."""
    folder = tmp_path_factory.mktemp("finished")
    plan = planned(small_study(folder), folder / "small")
    run(plan)
    return plan.refreshed()


def test_cells_run_seed_by_seed_and_leave_records(finished: Plan) -> None:
    ids = [point.id for point in finished.points]
    assert ids == ["no-attention-s0", "sagan-s0", "no-attention-s1", "sagan-s1"]
    for one in finished.points:
        assert one.record is not None
        assert one.path == finished.folder / f"{one.id}-{one.digest}"
        assert (one.record.variant, one.record.seed) == (one.variant, one.seed)
        assert one.record.attempts[-1].threads == 1
    assert states(finished) == ["finished"] * 4
    assert not finished.missing


def test_the_same_command_again_finds_everything_done(finished: Plan) -> None:
    asked = finished.manifest.study

    def nobody(config: object) -> Any:
        raise AssertionError("the machine need not be asked again")

    again = ablation.plan(asked, finished.folder, nobody)
    assert not again.missing
    assert again.manifest.looks == 0


def test_the_plan_says_what_differs_and_nothing_else(finished: Plan) -> None:
    assert finished.differences() == {
        "sagan": [
            ("model.attention.generator", [], [8]),
            ("model.attention.discriminator", [], [8]),
        ]
    }


def test_facts_are_counted_before_anything_runs(tmp_path: Path) -> None:
    facts = ablation.plan(small_study(tmp_path), tmp_path / "s", here).manifest.facts
    assert facts["no-attention"].blocks == ()
    assert [(p.network, p.side, p.channels) for p in facts["sagan"].blocks] == [
        ("generator", 8, 16), ("discriminator", 8, 16),
    ]  # fmt: skip
    assert facts["sagan"].parameters_g > facts["no-attention"].parameters_g
    assert facts["sagan"].flops_per_step > facts["no-attention"].flops_per_step
    assert not (tmp_path / "s").exists()


def test_seeds_may_be_added_and_that_counts_as_a_look(finished: Plan) -> None:
    grown = ablation.plan(finished.manifest.study, finished.folder, here, seeds=(0, 1, 2))
    assert [one.id for one in grown.missing] == ["no-attention-s2", "sagan-s2"]
    assert grown.manifest.looks == 1
    fewer = ablation.plan(finished.manifest.study, finished.folder, here, seeds=(1,))
    assert fewer.manifest.study.seeds == (0, 1)
    assert fewer.manifest.looks == 0


def test_variants_added_count_as_a_look_too(finished: Plan) -> None:
    more = finished.manifest.study.model_copy(update={"variants": ("sagan", "g-only")})
    assert ablation.plan(more, finished.folder, here).manifest.looks == 1


def test_seeds_added_to_the_definition_are_told(
    finished: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    more = finished.manifest.study.model_copy(update={"seeds": (0, 1, 2, 3)})
    assert not ablation.plan(more, finished.folder, here).missing
    assert "begun without seeds 2,3; add them with --seeds 2,3" in caplog.text


def test_seeds_added_before_any_result_are_no_look(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s")
    plan.manifest.write(plan.folder)
    assert ablation.plan(plan.manifest.study, plan.folder, here, seeds=(7,)).manifest.looks == 0


def test_a_damaged_cell_is_begun_anew_when_asked_and_what_was_there_is_kept(
    finished: Plan, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    shutil.copytree(finished.folder, folder)
    asked = finished.manifest.study
    path = next(point.path for point in finished.points if point.id == "sagan-s0")
    (folder / path.name / "record.json").write_bytes(b"")
    assert not planned(asked, folder).missing
    again = planned(asked, folder, retry=True)
    assert [point.id for point in again.missing] == ["sagan-s0"]
    run(again)
    assert states(again) == ["finished"] * 4
    assert (folder / f"{path.name}.old-1" / "record.json").read_bytes() == b""
    anew, before = weights(folder / path.name), weights(path)
    assert all(torch.equal(anew[name], before[name]) for name in before)


def test_only_some_variants_can_be_run(tmp_path: Path) -> None:
    asked = small_study(tmp_path)
    plan = ablation.plan(asked, tmp_path / "s", here, only=("sagan",), seeds=(1,))
    assert [one.id for one in plan.missing] == ["sagan-s1"]
    with pytest.raises(UserError, match=r"--only sagn: .*did you mean 'sagan'"):
        ablation.plan(asked, tmp_path / "s", here, only=("sagn",))


def test_variants_that_are_the_same_are_refused(tmp_path: Path) -> None:
    same = small_study(tmp_path, text=FILE.replace('["sagan"]', '["sagan", "feat8"]'))
    with pytest.raises(UserError, match="sagan and feat8 are the same network and recipe"):
        ablation.plan(same, tmp_path / "s", here)


def test_a_side_that_is_lacking_is_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = small_study(tmp_path, text=FILE.replace('["sagan"]', '["feat64"]'))
    with pytest.raises(UserError, match="lacks"):
        ablation.plan(asked, tmp_path / "s", here)


def test_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s")
    manifest = plan.manifest.model_copy(update={"data_fingerprint": "0" * 16})
    manifest.write(plan.folder)
    with pytest.raises(UserError, match="not those that the study"):
        planned(plan.manifest.study, plan.folder)


def test_time_is_estimated_from_finished_cells_by_flops(finished: Plan) -> None:
    more = ablation.plan(finished.manifest.study, finished.folder, here, seeds=(0, 1, 2))
    left = more.seconds_left(1)
    assert left is not None
    spent = [(c.record.cost.train_sec or 0) + (c.record.cost.score_sec or 0)
             for c in finished.points if c.record]  # fmt: skip
    assert left == pytest.approx(sum(spent) / 2, rel=0.5)
    assert more.seconds_left(2) == left / 2
    assert finished.seconds_left(1) == 0
    fresh = ablation.plan(finished.manifest.study, finished.folder / "none", here)
    assert fresh.seconds_left(1) is None
    assert fresh.disk_bytes() > more.disk_bytes() > finished.disk_bytes() == 0


def test_the_disk_that_is_needed_is_what_weights_and_checkpoints_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scorer, "scores", lambda *given, **named: iter(()))
    monkeypatch.setattr(Checkpoints, "slim", lambda self: None)  # what two under way take, too
    sets = ["model.width=16", "run.steps=3", "run.checkpoint_every=1"]
    usual, asked = (
        planned(small_study(tmp_path, *sets, *more), tmp_path / "s", only=("sagan",), seeds=(0,))
        for more in ((), ("run.keep_training_state=true",))
    )
    (one,) = asked.missing

    def estimate(cores: int, plan: grid.Plan = usual) -> int:
        monkeypatch.setattr(grid, "cores", lambda: cores)
        return plan.disk_bytes()

    experiment.run(one.ours, out=one.path)
    saved = [file.stat().st_size for file in (one.path / "checkpoints").iterdir()]
    kept = (one.path / "weights.pt").stat().st_size
    assert estimate(0) == pytest.approx(kept, rel=0.1)
    assert estimate(1) - estimate(0) == pytest.approx(sum(saved), rel=0.1)
    assert estimate(3) - estimate(0) == 3 * (estimate(1) - estimate(0))
    assert estimate(0, asked) - estimate(0) == pytest.approx(saved[0], rel=0.1)


def test_a_crashed_cell_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s")
    train = loop.train

    def fail(config: Any, *rest: Any) -> Iterator[Any]:
        if config.variant == "sagan" and config.seed == 0:
            raise MemoryError("no more")
        return train(config, *rest)

    monkeypatch.setattr("sagan_bench.session.session.train", fail)
    events = run(plan)
    ended = {name: what.status for name, what in events if isinstance(what, Ended)}
    assert ended == {
        "no-attention-s0": "finished", "sagan-s0": "failed",
        "no-attention-s1": "finished", "sagan-s1": "finished",
    }  # fmt: skip
    failed = plan.refreshed().points[1]
    assert failed.record is not None
    assert (failed.record.status, failed.record.reason) == ("failed", "MemoryError: no more")
    assert "in fail" in (failed.path / "failure.txt").read_text()
    monkeypatch.undo()

    again = ablation.plan(plan.manifest.study, plan.folder, here)
    assert not again.missing
    retried = planned(plan.manifest.study, plan.folder, retry=True)
    assert [one.id for one in retried.missing] == ["sagan-s0"]
    run(retried)
    assert states(retried) == ["finished"] * 4


def test_a_cell_that_cannot_even_begin_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s", only=("sagan",), seeds=(0,))

    def fail(*given: object, **named: object) -> None:
        raise UserError("the images have gone")

    monkeypatch.setattr(planning, "prepare", fail)
    run(plan)
    (record,) = (one.record for one in plan.refreshed().points if one.record)
    assert (record.status, record.step, record.attempts) == ("failed", 0, ())
    assert record.reason == "UserError: the images have gone"


@pytest.mark.parametrize("error", [UserError("damaged"), OSError(28, "No space left on device")])
def test_a_failure_that_cannot_be_recorded_stops_no_other_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s", seeds=(0,))
    directory = RunDirectory

    def refuse(path: Path, **given: Any) -> Any:
        if "no-attention" in path.name:
            raise error
        return directory(path, **given)

    for module in (writer, failures):
        monkeypatch.setattr(module, "RunDirectory", refuse)
    run(plan)
    assert states(plan) == [None, "finished"]


def test_what_fails_after_the_end_takes_no_result_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s", only=("sagan",), seeds=(0,))

    def fail(*given: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint.Checkpoints, "clear", fail)
    events = run(plan)
    assert events[-1][1].status == "finished"
    assert states(plan)[1] == "finished"


def test_a_damaged_record_is_that_cells_failure(tmp_path: Path) -> None:
    asked = small_study(tmp_path)
    plan = planned(asked, tmp_path / "s", seeds=(0,))
    damaged = plan.points[0]
    damaged.path.mkdir(parents=True)
    (damaged.path / "record.json").write_text("{")
    run(plan.refreshed())
    after = plan.refreshed()
    assert [point.status for point in after.points] == ["failed", "finished"]
    assert "move its folder away and give the same command again" in (after.points[0].reason or "")


def test_a_diverged_cell_is_a_result_and_not_run_again(tmp_path: Path) -> None:
    asked = small_study(tmp_path, "training.lr_d=1e30", "training.lr_g=1e30")
    plan = planned(asked, tmp_path / "s", seeds=(0,))
    events = run(plan)
    assert any(isinstance(what, Diverged) for _, what in events)
    assert states(plan) == ["diverged"] * 2
    assert not ablation.plan(asked, plan.folder, here, retry=True).missing


def test_scores_are_seen_as_they_come(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s", only=("sagan",), seeds=(0,))
    events = run(plan)
    assert events[0] == ("sagan-s0", None)
    assert [what.score.weights for _, what in events if isinstance(what, Scored)] == ["ema"]
    assert events[-1] == ("sagan-s0", Ended(Status.FINISHED, None))


def test_a_study_that_is_stopped_goes_on(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path), tmp_path / "s", seeds=(0,))
    asked = iter([None] * 3 + ["interrupted"] * 100)
    with pytest.raises(Stopped, match="interrupted"):
        run(plan, lambda: next(asked))
    assert "interrupted" in states(plan)
    again = planned(plan.manifest.study, plan.folder, seeds=(0,))
    run(again)
    assert states(again)[:2] == ["finished", "finished"]


# --- Worker processes --------------------------------------------------------------------------


def in_processes(
    plan: Plan,
    shared: Sequence[Slot] = (SLOT, SLOT),
    watch: Callable[[GridPoint, Any], None] = lambda point, what: None,
    stop: Callable[[], str | None] = lambda: None,
) -> None:
    workers = Processes(shared)
    try:
        ablation.run(plan, workers, watch, stop)
    finally:
        workers.close()


@pytest.mark.slow
def test_worker_processes_leave_the_same_bits_and_the_terminal_clean(
    tmp_path: Path, finished: Plan, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = planned(finished.manifest.study, tmp_path / "s", seeds=(0,))
    seen: list[Any] = []
    in_processes(plan, watch=lambda point, what: seen.append(what))
    assert states(plan) == ["finished", "finished"]
    assert any(isinstance(what, Step) for what in seen)
    for ours, theirs in zip(plan.points, finished.points, strict=False):
        first, second = weights(ours.path), weights(theirs.path)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert "leaked" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_loses_its_cell_alone_and_the_same_command_goes_on(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path, "run.steps=60"), tmp_path / "s", seeds=(0,))

    def kill(one: GridPoint, what: Any) -> None:
        if isinstance(what, Step) and one.variant == "no-attention":
            holder = records.read_object(one.path / ".holder.json")
            os.kill(holder["pid"], signal.SIGKILL)

    in_processes(plan, [SLOT], kill)
    dead, alive = plan.refreshed().points
    assert dead.record is not None
    assert dead.record.reason == "the worker process died: SIGKILL (out of memory?)"
    assert (dead.status, alive.status) == ("interrupted", "finished")
    assert dead.record.attempts[-1].outcome is None
    in_processes(plan.refreshed(), [SLOT], lambda *_: None)
    assert states(plan.refreshed())[:2] == ["finished", "finished"]


@pytest.mark.slow
def test_a_worker_killed_after_it_was_asked_to_stop_fails_no_cell(tmp_path: Path) -> None:
    plan = planned(small_study(tmp_path, "run.steps=60"), tmp_path / "s", only=("sagan",))
    job = Job("one", plan.points[1].config, plan.points[1].path, plan.points[1].digest or "")
    workers = Processes([SLOT])
    workers.submit(job)
    while not any(isinstance(event.what, Step) for event in workers.poll(10)):
        pass
    os.kill(records.read_object(job.path / ".holder.json")["pid"], signal.SIGSTOP)  # hears nothing
    workers.cancel("one", "interrupted")
    os.kill(records.read_object(job.path / ".holder.json")["pid"], signal.SIGKILL)
    events: list[Any] = []
    while not events or not isinstance(events[-1].what, Ended):
        events += workers.poll(10)
    workers.close()
    assert events[-1].what == Ended(Status.INTERRUPTED, "interrupted")
    assert states(plan)[1] == "interrupted"


@pytest.mark.slow
def test_stopped_workers_leave_checkpoints_and_go_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    asked = small_study(tmp_path, "run.steps=40")
    plan = planned(asked, tmp_path / "s", seeds=(0,))
    began: set[str] = set()

    def watch(one: GridPoint, what: Any) -> None:
        if isinstance(what, Step):
            began.add(one.id)

    with pytest.raises(Stopped):
        in_processes(plan, watch=watch, stop=lambda: "terminated" if len(began) == 2 else None)
    assert set(states(plan)) <= {"interrupted", "finished"}
    assert "interrupted" in states(plan)
    again = planned(asked, plan.folder, seeds=(0,))
    in_processes(again)
    undisturbed = planned(asked, tmp_path / "u", seeds=(0,))
    run(undisturbed)  # in this process
    for ours, theirs in zip(again.points, undisturbed.points, strict=True):
        first, second = weights(ours.path), weights(theirs.path)
        assert all(torch.equal(first[name], second[name]) for name in first)


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_ablation import in_processes, planned
from sagan_bench.runs.records import Status
from sagan_bench.experiments import study

if __name__ == "__main__":
    def say(cell, what):
        print(cell.id, type(what).__name__, flush=True)
    folder = Path(sys.argv[1])
    in_processes(planned(study.StudyManifest.of(folder).study, folder), watch=say)
"""


@pytest.mark.slow
def test_a_killed_driver_loses_little_and_the_study_ends_the_same(tmp_path: Path) -> None:
    asked = small_study(tmp_path, "run.steps=60", "run.checkpoint_every=5")
    plan = planned(asked, tmp_path / "s")
    plan.manifest.write(plan.folder)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    here = Path(__file__)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(plan.folder), str(here.parent), str(here.parents[1])],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert any("Step" in line for line in driver.stdout), "the driver ended before a step"
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 60
    while "running" in states(plan) and time.monotonic() < deadline:
        time.sleep(0.1)  # the workers notice, write a checkpoint and end
    assert "running" not in states(plan)
    again = planned(asked, plan.folder)
    in_processes(again)
    assert states(again) == ["finished"] * 4
    undisturbed = planned(asked, tmp_path / "u")
    run(undisturbed)  # in this process
    for ours, theirs in zip(again.points, undisturbed.points, strict=True):
        first, second = weights(ours.path), weights(theirs.path)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_study_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        driver.held(tmp_path / "s"),
        pytest.raises(UserError, match="another process is running the study"),
        driver.held(tmp_path / "s"),
    ):
        pass


def test_a_study_that_another_machine_runs_is_refused_and_taken_over_where_that_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_locks(monkeypatch)
    with machine(monkeypatch, "login2"):
        theirs = driver.held(tmp_path)
        theirs.__enter__()
    with pytest.raises(UserError) as refused, driver.held(tmp_path):
        pass
    said = str(refused.value)
    assert f"another process is running the study in {tmp_path}: process {os.getpid()} on " in said
    assert "on login2, since 20" in said
    assert "if it was killed there, the same command takes over in 300 s" in said
    silent(tmp_path / ".lock", locks.SECONDS_TO_LIVE + 1)
    with driver.held(tmp_path):
        pass


def test_folders_tell_the_data_apart(tmp_path: Path) -> None:
    asked = studies.load("presence")
    assert ablation.folder_of(asked, tmp_path, None) == tmp_path / "presence"
    cifar = studies.load("presence", set={"data.source": "cifar10:x"})
    assert ablation.folder_of(cifar, tmp_path, None) == tmp_path / "presence-cifar10"
    assert ablation.folder_of(cifar, tmp_path, "mine") == tmp_path / "mine"


def test_a_study_that_begins_around_runs_with_scores_has_looked(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    first = ablation.plan(study, tmp_path / "runs" / "small", here)
    assert first.manifest.looks == 0
    ready = ablation.with_data(first)
    assert ablation.plan(study, ready.folder, here).manifest.looks == 0
    path = ready.points[0].path
    config = ready.points[0].ours.model_dump(mode="json")
    example_records.stored(path, config=config, scores=(example_records.score(),))
    assert ablation.plan(study, ready.folder, here).manifest.looks == 1
