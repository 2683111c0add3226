"""What becomes of a run in Ray: each row of the table in docs/clusters.md, on a pretended one."""

import sys
import threading
from concurrent.futures import wait
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pretended_ray import LEFT, UNHEARD, ActorError, PretendedRay, cluster
from pretended_slurm import ended, ends, poll_until

from sagan_bench.core.errors import UserError
from sagan_bench.execution.engine import Ended, Event, Placed
from sagan_bench.execution.engines import ray
from sagan_bench.execution.engines._ray import cluster as ray_words
from sagan_bench.execution.engines.ray import Ray
from sagan_bench.runs import records
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Stopped
from sagan_bench.training.loop import Step

__all__ = ["cluster"]
FINISHED = Ended(Status.FINISHED, None)
WAITS = [["step 4", "wait"]]


def begun(engine: Ray) -> list[Event]:
    """Poll until a run has said that it takes steps."""
    return poll_until(engine, lambda events: any(isinstance(e.what, Step) for e in events))


def test_runs_are_in_actors_that_serve_many_and_say_how_far_they_are(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study", jobs=1)
    said = list[Any]()
    for job in cluster.jobs(tmp_path / "study", 2, s0=[["step 7", "finish"]]):
        engine.submit(job)
        events = poll_until(engine, ended(1))
        assert ends(events) == {job.id: FINISHED}
        said += [event.what for event in events]
    assert said[0] == Placed(None, "1 CPU")
    assert isinstance(said[1], Placed)
    assert said[1].waits_for is None
    assert cluster.begun == 1
    (actor,) = cluster.actors
    assert actor.startswith(engine.folder.prefix)
    engine.close()
    assert not cluster.actors
    assert engine.folder.address is None


def test_steps_are_told_while_a_run_goes_on(tmp_path: Path, cluster: PretendedRay) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    assert Step(4, None) in [event.what for event in begun(engine)]


def test_room_is_that_of_the_nodes_as_they_are_and_one_more(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    assert engine.free == 3
    courses = {f"s{seed}": WAITS for seed in range(3)}
    for job in cluster.jobs(tmp_path / "study", 3, **courses):
        engine.submit(job)
    assert engine.free == 0
    assert [actor.node for actor in cluster.actors.values()] == ["n1", "n1", None]
    cluster.join("n2", 4)  # as an autoscaler has it, where somebody waits
    assert [actor.node for actor in cluster.actors.values()] == ["n1", "n1", "n2"]
    poll_until(engine, lambda events: engine.free == 4)
    assert cluster.engine(tmp_path / "other", jobs=5).free == 5
    assert cluster.engine(tmp_path / "third", runs=2).free == 2


def test_a_run_that_waits_for_a_node_is_given_to_an_actor_that_is_done(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    for job in cluster.jobs(tmp_path / "study", 3, s1=WAITS):
        engine.submit(job)
    assert ends(poll_until(engine, ended(2))) == {"s0": FINISHED, "s2": FINISHED}
    assert len(cluster.actors) == 2


def test_a_node_that_nobody_has_is_said(
    tmp_path: Path, cluster: PretendedRay, caplog: pytest.LogCaptureFixture
) -> None:
    engine = cluster.engine(tmp_path / "study", gpus_per_cell=0.25)
    assert engine.free == 1
    for job in cluster.jobs(tmp_path / "study", 2):
        engine.submit(job)
    assert caplog.text.count("no node of the cluster has 1 CPU, 0.25 GPU; runs wait") == 1


def test_another_process_takes_up_what_is_under_way(tmp_path: Path, cluster: PretendedRay) -> None:
    jobs = cluster.jobs(tmp_path / "study", 3, s0=WAITS, s1=WAITS)
    engine = cluster.engine(tmp_path / "study")
    for job in jobs:
        engine.submit(job)  # the last waits for a node
    begun(engine)  # and its process is killed: it has no state that matters
    again = cluster.engine(tmp_path / "study")
    for job in jobs[:2]:
        again.submit(job)
    events = begun(again)
    assert Step(4, None) in [event.what for event in events]
    assert Placed(None, "1 CPU") not in [event.what for event in events]
    assert (cluster.begun, len(cluster.actors)) == (3, 2)
    for job in jobs[:2]:
        again.cancel(job.id, "pruned")
    assert len(ends(poll_until(again, ended(2)))) == 2
    poll_until(again, lambda events: not cluster.actors)  # they have the code of then
    other = cluster.engine(tmp_path / "other")
    assert not other.under_way


def test_an_actor_that_nobody_asks_has_its_run_write_a_checkpoint_and_ends(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study", lease_sec=0.3)
    (job,) = cluster.jobs(tmp_path / "study", s0=WAITS)
    engine.submit(job)
    begun(engine)
    cluster.actor().it.porter.thread.join(5)
    assert not cluster.actors
    record = records.read(job.path)
    assert (record.status, record.reason, record.step) == (Status.INTERRUPTED, UNHEARD, 4)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}  # it was asleep: run again
    assert not cluster.engine(tmp_path / "study").under_way


def end_alone(cluster: PretendedRay, why: str = "") -> None:
    """Have the only actor end by itself, before the engine polls again."""
    its = cluster.actor().it.porter
    wait(cluster.actor().open)  # the last that the engine asked
    if why:
        its.stop(why)
        its.leaves = True
    else:
        its.lease_sec = 0
    its.thread.join(5)
    if why:
        cluster.actor().die(ActorError("exit_actor() is called."))
    assert not cluster.actors


def test_a_process_that_was_asleep_for_too_long_has_lost_nothing_however_often(
    tmp_path: Path, cluster: PretendedRay, caplog: pytest.LogCaptureFixture
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[*WAITS, *([["wait"]] * 3)])
    engine.submit(job)
    begun(engine)
    for _ in range(4):
        poll_until(engine, lambda events: cluster.actors and engine.cells[job.id].is_up)
        end_alone(cluster)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert caplog.text.count(f"s0 is run again: {UNHEARD}") == 4
    assert "was ended" not in caplog.text


def test_what_was_stopped_by_another_process_meanwhile_is_not_run_again(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    end_alone(cluster, "interrupted")
    end = Ended(Status.INTERRUPTED, "interrupted")
    assert ends(poll_until(engine, ended(1))) == {"s0": end}
    assert (engine.free, cluster.begun, engine.idle) == (0, 1, [])


def test_a_run_whose_worker_outlived_its_actor_was_lost(
    tmp_path: Path, cluster: PretendedRay, caplog: pytest.LogCaptureFixture
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    end_alone(cluster, LEFT)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert "s0 is run again: its actor in Ray was ended" in caplog.text


def test_actors_are_where_the_command_was_given_with_its_words(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.nodes = {}
    given, other = tmp_path / "given", tmp_path / "other"
    for folder in (given, other):
        folder.mkdir()
    monkeypatch.chdir(given)
    monkeypatch.setattr(sys, "argv", ["cli.py", "ablate"])
    engine = cluster.engine(tmp_path / "study", jobs=1)
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    monkeypatch.chdir(other)  # as where a raylet was begun
    monkeypatch.setattr(sys, "argv", ["default_worker.py"])
    cluster.join("n1", 1)
    assert Path.cwd() == given
    assert sys.argv == ["cli.py", "ablate"]
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}


def test_a_node_without_the_folder_of_the_command_is_told(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.nodes = {}
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.chdir(given)
    engine = cluster.engine(tmp_path / "study", jobs=1)
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    monkeypatch.chdir(tmp_path)
    given.rmdir()
    cluster.join("n1", 1)
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    assert f"does not see {given}; give the command in a folder on a file system" in str(end.reason)


def test_an_exception_in_a_run_is_its_own_result(tmp_path: Path, cluster: PretendedRay) -> None:
    engine = cluster.engine(tmp_path / "study")
    for job in cluster.jobs(tmp_path / "study", 2, s0=[["step 1", "fail ValueError: no"]]):
        engine.submit(job)
    events = ends(poll_until(engine, ended(2)))
    assert events == {"s0": Ended(Status.FAILED, "ValueError: no"), "s1": FINISHED}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("The actor died because its node has died. Node Id: 1", "its node is gone"),
        ("The node was running low on memory", "out of memory: Ray ended its actor"),
        ("Worker exits: the process was killed by the OOM killer", "its actor in Ray was ended"),
    ],
)
def test_a_run_whose_actor_is_gone_is_run_again_elsewhere(
    tmp_path: Path,
    cluster: PretendedRay,
    said: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=WAITS)
    engine.submit(job)
    begun(engine)
    cluster.lose(cluster.actor(), said)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert f"s0 is run again: {words}" in caplog.text
    assert [attempt.from_step for attempt in records.read(job.path).attempts] == [0, 4]


def test_a_run_whose_worker_is_killed_is_run_again_by_the_same_actor(
    tmp_path: Path, cluster: PretendedRay, caplog: pytest.LogCaptureFixture
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 4", "kill 9"]])[0])
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert "s0 is run again: the worker process died: SIGKILL" in caplog.text
    assert cluster.begun == 1


def test_three_losses_without_a_step_gained_are_a_failure(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[*WAITS, *([["wait"]] * 9)])
    engine.submit(job)
    begun(engine)
    for _ in range(3):
        poll_until(engine, lambda events: cluster.actors and engine.cells[job.id].is_up)
        cluster.lose(cluster.actor())
    (end,) = ends(poll_until(engine, ended(1))).values()
    assert end.status is Status.FAILED
    assert "its actor in Ray was ended" in str(end.reason)
    assert "lost 3 times without a step gained" in str(end.reason)
    assert cluster.begun == 3


def test_a_node_that_is_taken_away_is_no_loss_however_often(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    (job,) = cluster.jobs(tmp_path / "study", s0=[["wait"]] * 4)
    engine.submit(job)
    for _ in range(4):
        poll_until(engine, lambda events: cluster.actors and engine.cells[job.id].is_up)
        cluster.lose(cluster.actor(), preempted=True)
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}


def test_a_disk_that_is_full_is_told_and_not_tried_again(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=[["step 1", "lost no space left"]])[0])
    end = Ended(Status.INTERRUPTED, "no space left")
    assert ends(poll_until(engine, ended(1))) == {"s0": end}
    assert engine.free


def test_pruned_runs_stop_and_those_that_wait_are_forgotten(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    courses = {"s0": WAITS, "s1": WAITS}
    jobs = cluster.jobs(tmp_path / "study", 3, **courses)
    for job in jobs:
        engine.submit(job)
    poll_until(engine, lambda events: engine.cells["s0"].is_up and engine.cells["s1"].is_up)
    begun(engine)
    for job in reversed(jobs):
        engine.cancel(job.id, "pruned")
    end = Ended(Status.INTERRUPTED, "pruned")
    assert ends(poll_until(engine, ended(3))) == {"s0": end, "s1": end, "s2": end}
    assert records.read(jobs[0].path).reason == "pruned"
    assert not jobs[2].path.exists()
    assert len(cluster.actors) == 2


def test_a_run_that_does_not_stop_is_ended(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "SECONDS_TO_STOP", 0.2)
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    actor = cluster.actor()
    monkeypatch.setattr(actor.it.porter, "stop", lambda why: None)  # it does not hear
    engine.cancel("s0", "pruned")
    assert ends(poll_until(engine, ended(1))) == {"s0": Ended(Status.INTERRUPTED, "pruned")}
    assert not cluster.actors
    cluster.actors[actor.name] = actor  # its run is ended with the others


def test_an_answer_that_is_lost_is_asked_for_again(tmp_path: Path, cluster: PretendedRay) -> None:
    engine = cluster.engine(tmp_path / "study")
    cluster.unavailable = {"begin": True, "news": True}
    engine.submit(cluster.jobs(tmp_path / "study")[0])
    assert ends(poll_until(engine, ended(1))) == {"s0": FINISHED}
    assert not cluster.unavailable


def test_a_file_system_that_a_node_does_not_see_ends_the_command(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    cluster.nodes = {}
    engine = cluster.engine(tmp_path / "study", jobs=3)
    jobs = cluster.jobs(tmp_path / "study", 3)
    for job in jobs:
        engine.submit(job)
    (tmp_path / "study" / ".ray" / "code").rmdir()
    cluster.join("n1", 3)
    with pytest.raises(UserError, match=r"first 3 runs failed.*does not see .*choose --runs on"):
        poll_until(engine, ended(4))
    assert records.read(jobs[0].path).status is Status.FAILED


def test_a_cluster_that_is_not_there_or_goes_is_an_error(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    cluster.is_up = False
    with pytest.raises(UserError, match=r"Ray at 127.* does not answer: Failed to connect to GCS;"):
        poll_until(engine, ended(1))
    engine.close()  # its runs end by themselves
    with pytest.raises(
        UserError, match=r"no connection to Ray at auto: Could not find any running"
    ):
        cluster.engine(tmp_path / "study")
    cluster.is_up = True


def test_a_head_that_is_gone_ends_the_command_before_ray_does(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_words, "SECONDS_BETWEEN_CHECKS", 0.02)
    monkeypatch.setattr(ray_words, "SECONDS_WITHOUT_HEAD", 0.1)
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    cluster.head.close()
    with pytest.raises(UserError, match=r"takes no connections; .*the same command goes on"):
        poll_until(engine, ended(1))


def test_an_address_where_nobody_is_is_not_waited_for(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    cluster.head.close()
    for address in ("auto", cluster.address):
        with pytest.raises(
            UserError, match=r"no connection to Ray at .* takes no connections; begin"
        ):
            cluster.engine(tmp_path / "study", address=address)


def test_an_address_of_the_dashboard_is_not_waited_for(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_words, "SECONDS_FOR_A_CONNECTION", 5.0)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(
            UserError, match=r"is a web server: is it the port of the head \(6379\)"
        ):
            cluster.engine(tmp_path / "study", address=address)
        server.shutdown()


def test_a_machine_without_ray_is_told_what_to_install(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sagan-bench\[ray\]'"):
        cluster.engine(tmp_path / "study")


def test_all_runs_are_stopped_by_whoever_comes(tmp_path: Path, cluster: PretendedRay) -> None:
    engine = cluster.engine(tmp_path / "study")
    jobs = cluster.jobs(tmp_path / "study", 3, s0=WAITS, s1=WAITS)
    for job in jobs:
        engine.submit(job)
    begun(engine)
    begun(engine)
    assert Ray.stop(tmp_path / "study", "interrupted") == 0
    assert records.read(jobs[0].path).reason == "interrupted"
    assert not jobs[2].path.exists()
    assert not cluster.actors
    assert Ray.stop(tmp_path / "study", "interrupted") == 0
    assert Ray.stop(tmp_path / "nothing", "interrupted") == 0
    assert not (tmp_path / "nothing").exists()


def test_runs_of_a_cluster_that_is_gone_need_not_be_stopped(
    tmp_path: Path, cluster: PretendedRay, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.engine(tmp_path / "study")  # and its process is killed
    cluster.is_up = False
    assert Ray.stop(tmp_path / "study", "interrupted") == 0
    assert "write checkpoints by themselves" in caplog.text
    cluster.is_up = True
    assert Ray.stop(tmp_path / "study", "interrupted") == 0


def test_a_process_whose_runs_are_stopped_by_another_begins_no_more(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    engine = cluster.engine(tmp_path / "study")
    engine.submit(cluster.jobs(tmp_path / "study", s0=WAITS)[0])
    begun(engine)
    cluster.actor().it.porter.stop("interrupted")
    end = Ended(Status.INTERRUPTED, "interrupted")
    assert ends(poll_until(engine, ended(1))) == {"s0": end}
    assert engine.free == 0


def test_stopping_the_process_stops_its_runs(tmp_path: Path, cluster: PretendedRay) -> None:
    from sagan_bench.experiments.driver import drive

    jobs = cluster.jobs(tmp_path / "study", 3, s0=WAITS, s1=WAITS)
    waiting, seen = list(jobs), list[object]()

    class Work:
        def next(self) -> object:
            return waiting.pop(0) if waiting else None

        def take(self, run: object, what: object) -> None:
            seen.append(what)

    def stop() -> str | None:
        return "interrupted" if seen.count(Step(4, None)) > 1 else None

    engine = cluster.engine(tmp_path / "study")
    with pytest.raises(Stopped, match="interrupted"):
        drive(Work(), engine, lambda run, what: None, stop, tmp_path)  # type: ignore[arg-type]
    engine.close()
    assert not cluster.actors
    assert [records.read(job.path).reason for job in jobs[:2]] == ["interrupted"] * 2
