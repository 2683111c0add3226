"""What becomes of a run in SLURM: each row of the table in docs/clusters.md, on a pretended one."""

import os
import signal
from pathlib import Path

import pytest
from machines import local_locks, machine
from pretended_slurm import PretendedSlurm, cluster, ended, ends, poll_until

from sagan_bench.core import locks
from sagan_bench.core.errors import UserError
from sagan_bench.execution.engine import Ended, Placed
from sagan_bench.execution.engines import slurm
from sagan_bench.execution.engines._slurm.endings import CANCELLED, NO_TIME
from sagan_bench.execution.engines.slurm import Slurm
from sagan_bench.runs import records
from sagan_bench.runs.records import Status
from sagan_bench.runs.run_directory import read_now
from sagan_bench.session.events import Stopped
from sagan_bench.training.loop import Step

__all__ = ["cluster"]
FINISHED = Ended(Status.FINISHED, None)


def begun(cluster: PretendedSlurm, engine: Slurm, array: int = 1) -> None:
    """Poll until the first run of an array has said that it takes steps."""
    file = engine.folder.path / f"{array}-0.events"
    poll_until(engine, lambda events: file.exists() and "step" in file.read_text())
    engine.poll(0)  # what it said is read


def test_runs_are_elements_of_an_array_and_say_how_far_they_are(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=2, gres="gpu:1", exclusive=True)
    for job in cluster.jobs(tmp_path / "study", 3, s0=[["step 7", "finish"]]):
        engine.submit(job)
    events = poll_until(engine, ended(3))
    assert ends(events) == dict.fromkeys(("s0", "s1", "s2"), FINISHED)
    of_first = [event.what for event in events if event.job == "s0"]
    assert of_first[-2:] == [Step(7, None), FINISHED]
    assert Placed("n1", None) in of_first
    (words,) = cluster.calls("sbatch")
    assert {"--array=0-2%2", "--time=10", "--gres=gpu:1", "--exclusive"} <= {*words}
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append"} <= {*words}
    assert engine.free == 100


def test_another_process_takes_up_what_is_in_the_queue(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    jobs = cluster.jobs(tmp_path / "study", 2, s0=[["step 3", "wait"]], s1=[["wait"]])
    engine = cluster.engine(tmp_path / "study")
    for job in jobs:
        engine.submit(job)
    begun(cluster, engine)  # and its process is killed: it has no state that matters
    again = cluster.engine(tmp_path / "study")
    for job in jobs:
        again.submit(job)
    events = poll_until(again, lambda events: any(isinstance(e.what, Step) for e in events))
    assert Step(3, None) in [event.what for event in events]
    assert len(cluster.calls("sbatch")) == 1
    assert again.free == 98


def test_what_waits_is_taken_up_too_and_another_experiment_is_not(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    cluster.hold()
    for folder in ("study", "other", "study"):
        engine = cluster.engine(tmp_path / folder)
        engine.submit(cluster.jobs(tmp_path / folder)[0])
        events = poll_until(engine, lambda events: bool(events))
        assert events[0].what == Placed(None, "None")
    names = [next(w for w in words if "job-name" in w) for words in cluster.calls("sbatch")]
    assert len(names) == 2
    assert names[0] != names[1]


def test_a_copy_of_a_folder_has_no_runs_in_the_queue(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    cluster.hold()
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    engine.poll(0)
    (tmp_path / "study").rename(tmp_path / "moved")
    again = cluster.engine(tmp_path / "moved")
    again.submit(cluster.jobs(tmp_path / "moved")[0])
    again.poll(0)
    assert len(cluster.calls("sbatch")) == 2


def test_an_exception_in_a_run_is_its_own_result(tmp_path: Path, cluster: PretendedSlurm) -> None:
    engine = cluster.engine(tmp_path / "study")
    for job in cluster.jobs(tmp_path / "study", 2, s0=[["step 1", "fail ValueError: no"]]):
        engine.submit(job)
    events = ends(poll_until(engine, ended(2)))
    assert events == {"s0": Ended(Status.FAILED, "ValueError: no"), "s1": FINISHED}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "its SLURM job ended as FAILED: SIGKILL (out of memory?)"),
        ({"as": "OUT_OF_MEMORY"}, "out of memory: SLURM ended its job as OUT_OF_MEMORY"),
        ({"as": "TIMEOUT"}, NO_TIME),
        ({"as": "NODE_FAIL"}, "its node n1 failed"),
    ],
)
def test_what_the_machine_ended_is_run_again(
    tmp_path: Path,
    cluster: PretendedSlurm,
    how: dict[str, str],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 4", "wait"]])[0])
    begun(cluster, engine)
    cluster.signal("1_0", signal.SIGKILL, **how)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert f"s0 is run again: {words}" in caplog.text


def test_three_losses_without_a_step_gained_are_a_failure(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[["step 4", "kill 9"]] * 9)
    engine.submit(job)
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    why = "its SLURM job ended as FAILED: SIGKILL (out of memory?)"
    assert end.reason == f"{why} (lost 3 times without a step gained)"
    assert records.read(job.path).reason == end.reason


def test_a_step_gained_between_losses_begins_the_count_anew(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    courses = [[f"step {step}", "kill 9"] for step in (1, 2, 3, 4)]
    engine.submit(cluster.jobs(tmp_path / "study", s0=courses)[0])
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert len(cluster.calls("sbatch")) == 5


def test_lost_before_any_record_three_times_is_failed(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["kill 9"]] * 9)[0])
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    assert len(cluster.calls("sbatch")) == 3


def test_preempted_and_put_back_by_slurm_is_not_noticed_and_begins_at_once(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 4", "wait"]])[0])
    begun(cluster, engine)
    cluster.signal("1_0", signal.SIGTERM, requeue=True)
    events = poll_until(engine, ended(1))
    assert ends(events) == {"s0": FINISHED}
    assert Placed(None, "BeginTime") in [event.what for event in events]
    assert cluster.calls("scontrol") == [
        ["show", "config"],
        ["update", "jobid=1_0", "starttime=now"],
    ]
    assert len(cluster.calls("sbatch")) == 1


def test_preempted_and_not_put_back_is_handed_over_again_however_often(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 4", "wait"]] * 4)[0])
    for array in range(1, 5):
        begun(cluster, engine, array)
        number = signal.SIGKILL if array % 2 else signal.SIGTERM  # with and without a checkpoint
        cluster.signal(f"{array}_0", number, **{"as": "PREEMPTED"})
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}


def test_the_time_limit_without_a_requeue_is_handed_over_again_if_a_step_was_gained(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    course = [["step 9", "wait"]] * 4
    engine.submit(cluster.jobs(tmp_path / "study", s0=course)[0])
    for array in range(1, 5):
        begun(cluster, engine, array)
        cluster.signal(f"{array}_0", signal.SIGUSR1)
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    assert NO_TIME in str(end.reason)


def test_cancelled_by_hand_is_interrupted_and_the_next_process_hands_it_over(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[["step 4", "wait"]])
    engine.submit(job)
    begun(cluster, engine)
    os.system("scancel 1_0")
    assert ends(poll_until(engine, ended(1))) == {"s0": Ended(Status.INTERRUPTED, CANCELLED)}
    again = cluster.engine(tmp_path / "study")
    again.submit(job)
    assert ends(poll_until(again, ended(1))) == {"s0": FINISHED}


def test_cancelled_while_it_waits_is_interrupted(tmp_path: Path, cluster: PretendedSlurm) -> None:
    cluster.hold()
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    poll_until(engine, lambda events: bool(events))
    os.system("scancel 1_0")
    assert ends(poll_until(engine, ended(1))) == {"s0": Ended(Status.INTERRUPTED, CANCELLED)}


def test_pruned_runs_stop_by_their_file_and_waiting_runs_leave_the_queue(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=1)
    courses = {"s0": [["step 4", "wait"]], "s1": [["wait"]]}
    jobs = cluster.jobs(tmp_path / "study", 3, **courses)
    for job in jobs[:2]:
        engine.submit(job)
    begun(cluster, engine)
    engine.submit(jobs[2])
    for name in ("s2", "s1", "s0"):
        engine.cancel(name, "pruned")
    end = Ended(Status.INTERRUPTED, "pruned")
    assert ends(poll_until(engine, ended(3))) == {"s0": end, "s1": end, "s2": end}
    assert records.read(jobs[0].path).reason == "pruned"
    assert len(cluster.calls("sbatch")) == 1


def test_a_run_that_does_not_stop_is_ended(
    tmp_path: Path, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "SECONDS_TO_STOP", 0.2)
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 1", "wait"]])[0])
    begun(cluster, engine)
    monkeypatch.setattr(engine.folder, "stop", lambda spot, why: None)  # it cannot be written
    engine.cancel("s0", "pruned")
    assert ends(poll_until(engine, ended(1))) == {"s0": Ended(Status.INTERRUPTED, "pruned")}


def test_a_full_disk_in_a_run_is_not_tried_again_by_this_process(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 1", "lost No space left"]])[0])
    end = Ended(Status.INTERRUPTED, "No space left")
    assert ends(poll_until(engine, ended(1))) == {"s0": end}


def test_an_exit_code_is_a_failure_that_keeps_the_end_of_the_log(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    last = "print ModuleNotFoundError: No module named 'torch'"
    (job,) = cluster.jobs(tmp_path / "study", s0=[["print Traceback", last, "exit 1"]])
    engine.submit(job)
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    assert "ended as FAILED with exit code 1; ModuleNotFoundError" in str(end.reason)
    assert (job.path / "failure.txt").read_text().splitlines()[0] == "Traceback"


def test_an_exit_in_a_run_is_told_by_what_that_printed(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[["step 1", "exit 3"]])
    job.path.mkdir(parents=True)
    (job.path / "log.txt").write_text("--- attempt\nlicence: no token is left\n")
    engine.submit(job)
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert str(end.reason).endswith("with exit code 3; licence: no token is left")


@pytest.mark.parametrize(("how", "status"), [("FAILED", "interrupted"), ("NODE_FAIL", "running")])
def test_what_slurm_ended_on_another_machine_holds_its_run_no_more(
    tmp_path: Path, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch, how: str, status: str
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[["step 4", "wait"]])
    engine.submit(job)
    begun(cluster, engine)
    local_locks(monkeypatch)
    with machine(monkeypatch, "n1"):
        theirs = locks.acquired(job.path / ".lock", 0)
    cluster.hold()
    cluster.signal("1_0", signal.SIGKILL, **{"as": how})
    poll_until(engine, lambda events: len(cluster.calls("sbatch")) == 2)
    assert read_now(job.path).status == status  # a node that is out of reach may go on
    theirs.release()


def test_three_first_runs_that_fail_before_a_step_end_the_whole(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=1)
    bad = {f"s{seed}": [["print no torch", "exit 1"]] for seed in range(6)}
    for job in cluster.jobs(tmp_path / "study", 6, **bad):
        engine.submit(job)
    with pytest.raises(UserError, match=r"first 3 runs failed.*--retry-failed.*no torch"):
        poll_until(engine, ended(6))
    assert "PENDING" not in [
        cluster.element(f.stem)["state"] for f in cluster.home.glob("1_*.json")
    ]


def test_failures_after_a_good_start_end_nothing(tmp_path: Path, cluster: PretendedSlurm) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=1)
    bad = {f"s{seed}": [["exit 1"]] for seed in range(1, 6)}
    for job in cluster.jobs(tmp_path / "study", 6, **bad):
        engine.submit(job)
    assert len(ends(poll_until(engine, ended(6)))) == 6


REFUSED = "sbatch: error: Batch job submission failed: Invalid partition name specified"
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def test_what_sbatch_refuses_is_said_in_its_words_and_nothing_is_begun(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study", partition="nope")
    cluster.say("sbatch", REFUSED)
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    with pytest.raises(UserError, match=r"Invalid partition name specified.*nothing was begun"):
        engine.poll(0)
    assert not [*(tmp_path / "study" / ".slurm").glob("1*")]


def test_a_controller_that_is_down_changes_nothing(
    tmp_path: Path, cluster: PretendedSlurm, caplog: pytest.LogCaptureFixture
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 1", "wait"], ["finish"]])[0])
    begun(cluster, engine)
    cluster.say("squeue", *[AWAY] * 4)
    for _ in range(8):
        assert not ends(engine.poll(0.02))
    assert caplog.text.count("SLURM does not answer") == 1
    cluster.signal("1_0", signal.SIGTERM, requeue=True)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}


def test_a_controller_that_was_never_up_is_an_error(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study")
    cluster.say("squeue", AWAY)
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    with pytest.raises(UserError, match=r"Unable to contact.*same command again"):
        engine.poll(0)


def test_a_limit_of_jobs_makes_arrays_smaller_and_the_rest_wait(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    (cluster.home / "most").write_text("3")
    engine = cluster.engine(tmp_path / "study")
    for job in cluster.jobs(tmp_path / "study", 5):
        engine.submit(job)
    assert len(ends(poll_until(engine, ended(5)))) == 5


def test_a_limit_that_lets_nothing_in_is_an_error(tmp_path: Path, cluster: PretendedSlurm) -> None:
    (cluster.home / "most").write_text("0")
    engine = cluster.engine(tmp_path / "study")
    for job in cluster.jobs(tmp_path / "study", 2):
        engine.submit(job)
    with pytest.raises(UserError, match="QOSMaxSubmitJobPerUserLimit"):
        engine.poll(0)


def test_arrays_are_as_long_as_slurm_allows_and_share_what_runs_at_a_time(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    cluster.hold()
    engine = cluster.engine(tmp_path / "study", jobs=8, runs=1500)
    jobs = cluster.jobs(tmp_path / "study", 1200)
    for job in jobs:
        engine.submit(job)
    engine.poll(0)
    arrays = [word for words in cluster.calls("sbatch") for word in words if "--array" in word]
    assert arrays == ["--array=0-999%4", "--array=0-199%4"]
    assert engine.free == 300


def test_all_that_was_handed_over_keeps_to_what_may_run_at_a_time(
    tmp_path: Path, cluster: PretendedSlurm
) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=2)
    wait = [["step 1", "wait"]]
    jobs = cluster.jobs(tmp_path / "study", 5, s1=wait, s2=wait, s3=wait, s4=wait)
    for job in jobs[:2]:
        engine.submit(job)
    events = poll_until(engine, ended(1))  # s0
    for job in jobs[2:]:
        engine.submit(job)
    poll_until(engine, lambda events: "s2" in engine.cells)
    assert {*engine.cells} == {"s1", "s2"}
    assert [job.id for job in engine.kept] == ["s3", "s4"]
    engine.cancel("s1", "pruned")
    events = poll_until(engine, lambda events: "s3" in engine.cells)
    assert ends(events)["s1"].reason == "pruned"
    arrays = [word for words in cluster.calls("sbatch") for word in words if "--array" in word]
    assert arrays == ["--array=0-1%2", "--array=0-0%1", "--array=0-0%1"]


def test_a_folder_of_any_name_has_its_logs(tmp_path: Path, cluster: PretendedSlurm) -> None:
    study = tmp_path / "50 %u of it"
    engine = cluster.engine(study)
    engine.submit(cluster.jobs(study)[0])
    assert len(ends(poll_until(engine, ended(1)))) == 1
    assert [file.name for file in (study / ".slurm").glob("*.log")] == ["1-0.log"]
    (words,) = cluster.calls("sbatch")
    assert f"--output={tmp_path}/50 %%u of it/.slurm/1-%a.log" in words
    engine = cluster.engine(tmp_path / "a\\b")
    engine.submit(cluster.jobs(tmp_path / "a\\b")[0])
    with pytest.raises(UserError, match="choose --runs without"):
        engine.poll(0)


def test_arrays_beyond_what_may_run_at_a_time_wait(tmp_path: Path, cluster: PretendedSlurm) -> None:
    cluster.hold()
    engine = cluster.engine(tmp_path / "study", jobs=2, runs=2500)
    for job in cluster.jobs(tmp_path / "study", 2500):
        engine.submit(job)
    engine.poll(0)
    arrays = [word for words in cluster.calls("sbatch") for word in words if "--array" in word]
    assert arrays == ["--array=0-999%1", "--array=0-999%1"]
    assert len(engine.kept) == 500


def test_all_runs_are_stopped_by_whoever_comes(tmp_path: Path, cluster: PretendedSlurm) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=1)
    jobs = cluster.jobs(tmp_path / "study", 3, s0=[["step 4", "wait"]])
    for job in jobs:
        engine.submit(job)
    begun(cluster, engine)
    assert Slurm.stop(tmp_path / "study", "interrupted") == 3
    while Slurm.stop(tmp_path / "study", "interrupted"):
        pass
    assert records.read(jobs[0].path).reason == "interrupted"
    assert not jobs[1].path.exists()
    assert Slurm.stop(tmp_path / "nothing", "interrupted") == 0


def test_a_machine_without_slurm_is_told_where_to_go(
    tmp_path: Path, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    with pytest.raises(UserError, match=r"no program squeue is here.*login node"):
        engine.poll(0)


def test_stopping_the_process_leaves_its_runs(tmp_path: Path, cluster: PretendedSlurm) -> None:
    from sagan_bench.experiments.driver import drive

    jobs = cluster.jobs(tmp_path / "study", 2, s0=[["step 1", "wait"]])
    waiting, seen = list(jobs), list[object]()

    class Work:
        def next(self) -> object:
            return waiting.pop(0) if waiting else None

        def take(self, run: object, what: object) -> None:
            seen.append(what)

    def stop() -> str | None:
        return "interrupted" if Step(1, None) in seen else None

    engine = cluster.engine(tmp_path / "study")
    with pytest.raises(Stopped, match="interrupted"):
        drive(Work(), engine, lambda run, what: None, stop, tmp_path)  # type: ignore[arg-type]
    assert not cluster.calls("scancel")
    assert cluster.element("1_0")["state"] == "RUNNING"
