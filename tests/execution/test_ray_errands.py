"""What a node of Ray is asked before runs are handed over, on a pretended one."""

import threading
import time
from pathlib import Path

import pytest
from example_runs import SMALL
from pretended_ray import PretendedRay, cluster

from sagan_bench.config.layers import read
from sagan_bench.core.errors import UserError
from sagan_bench.execution import errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.engines._ray import errand
from sagan_bench.execution.engines._ray.settings import Settings
from sagan_bench.execution.engines.ray import Ray
from sagan_bench.execution.errands import Errand
from sagan_bench.session.capabilities import capabilities
from sagan_bench.session.events import Stopped

__all__ = ["cluster"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "SECONDS_BETWEEN_LOOKS", 0.02)


def nothing(text: str) -> None:
    pass


def settings(cluster: PretendedRay) -> Settings:
    return Settings(address=cluster.address)


def test_a_node_says_what_it_has_and_sees(tmp_path: Path, cluster: PretendedRay) -> None:
    config = read(sets=[*SMALL, "run.device=cpu"]).config
    with errands.marked([tmp_path / "runs"]) as marks:
        marks |= {str(tmp_path / "unseen"): "x"}
        asked = Errand(marks, config.model_dump(mode="json"))
        place = Place(tmp_path / "study", "cpu", None, 1)
        answer = Ray.send(place, settings(cluster), asked, nothing)
    assert answer.host == capabilities(config)
    assert answer.unseen == (str(tmp_path / "unseen"),)
    assert answer.differing == {}
    assert not cluster.actors


def test_it_is_taken_back_while_it_waits_and_is_not_taken_for_a_run(
    tmp_path: Path, cluster: PretendedRay
) -> None:
    cluster.nodes["n1"] = 0
    said = list[str]()

    def tell(text: str) -> None:
        said.append(text)
        assert not next(iter(cluster.actors)).startswith("sagan-")
        raise Stopped("interrupted", None)

    with pytest.raises(Stopped):
        Ray.send(Place(tmp_path, "cpu", None, 1), settings(cluster), Errand(), tell)
    assert said == ["waits for room"]
    assert not cluster.actors


def test_an_actor_that_is_lost_is_told(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def done(text: str, folder: Path) -> str:
        begun.set()
        over.wait(20)
        return ""

    monkeypatch.setattr(errands, "done", done)

    def tell(text: str) -> None:
        if begun.is_set() and cluster.actors:
            cluster.lose(cluster.actor(), "The actor died because its node has died.")

    with pytest.raises(UserError, match="left no answer: its node is gone"):
        Ray.send(Place(tmp_path, "cpu", None, 1), settings(cluster), Errand(), tell)
    over.set()


def test_what_is_found_from_here(tmp_path: Path, cluster: PretendedRay) -> None:
    place = Place(tmp_path, "auto", None, 1)
    there, room = Ray.examined(place, settings(cluster))
    assert (there.ok, there.text) == (True, f"a cluster at {cluster.address}")
    assert (room.ok, room.text) == (True, "for 2 runs at a time, each with 1 CPU")
    *_, room = Ray.examined(place, Settings(address=cluster.address, gpus_per_cell=0.5))
    assert (room.ok, room.needed) == (False, True)
    cluster.is_up = False
    (there,) = Ray.examined(place, settings(cluster))
    assert not there.ok
    assert "no connection to Ray" in there.text


def test_a_long_errand_outlives_the_lease_while_somebody_waits_for_it(
    tmp_path: Path, cluster: PretendedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = errands.done

    def slowly(text: str, folder: Path) -> str:
        time.sleep(1.0)
        return done(text, folder)

    monkeypatch.setattr(errands, "done", slowly)
    brief = settings(cluster).model_copy(update={"lease_sec": 0.3})
    assert Ray.send(Place(tmp_path, "cpu", None, 1), brief, Errand(), nothing).node
