"""Errands: what a node is asked and answers, and an errand as a job of a pretended SLURM."""

import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pretended_slurm import HOST, TIME, PretendedSlurm, cluster

from sagan_bench.config.layers import read
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.data import building
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store, cache_root, known_fingerprint
from sagan_bench.execution import errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.engines._slurm import errand as job
from sagan_bench.execution.engines._slurm.settings import Settings
from sagan_bench.execution.engines.slurm import Slurm
from sagan_bench.execution.errands import Answer, Errand
from sagan_bench.session.capabilities import capabilities

__all__ = ["cluster"]


def done(errand: Errand, folder: Path) -> Answer:
    """Do an errand through its file, as the program does."""
    file = folder / "errand.json"
    file.write_text(errands.written(errand, folder))
    assert errands.main(file) == 0
    return errands.answered(file.with_suffix(".answer").read_text())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_a_node_says_what_auto_means_and_has_the_versions_of_here(tmp_path: Path) -> None:
    config = read(sets=["run.device=cpu"]).config
    answer = done(Errand(config=config.model_dump(mode="json")), tmp_path)
    assert answer.host == capabilities(config)
    assert answer.node == platform.node()
    assert not answer.differing
    assert not answer.refused
    errands.refuse(answer)


def test_images_are_made_ready_where_the_cache_is_seen_and_not_elsewhere(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    config = read(sets=[f"data.source=folder:{pictures}", "data.image_size=32"]).config
    spec = DataSpec.of(config.data)
    asked = Errand(config=config.model_dump(mode="json"), prepare=True)
    made, prepare = list[object](), building.prepare

    def counted(*given: Any, **how: Any) -> Store:
        made.append(how["workers"])
        return prepare(*given, **how)

    monkeypatch.setattr(building, "prepare", counted)
    gone = done(replace(asked, marks={str(cache_root() / ".seen-1"): "x"}), tmp_path)
    assert gone.unseen == (str(cache_root() / ".seen-1"),)
    assert known_fingerprint(spec) is None
    with errands.marked([cache_root(), tmp_path]) as marks:
        assert len(marks) == 2
        assert not done(replace(asked, marks=marks, workers=1), tmp_path).unseen
    assert made == [1]
    assert known_fingerprint(spec) is not None
    assert not [*cache_root().glob(".seen-*"), *tmp_path.glob(".seen-*")]
    with pytest.raises(UserError, match=r"does not see .*set SAGAN_BENCH_CACHE to a folder"):
        errands.refuse(gone)


def test_images_of_a_file_of_ones_own_are_made_where_its_copy_is(tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "own" / "stripes.py"
    extensions.load(file)
    few = ["data.train_images=none", "data.test_images=none"]
    config = read(sets=["data.source=stripes:24", "data.image_size=32", *few]).config
    assert known_fingerprint(DataSpec.of(config.data)) is None
    errand = Errand(config=config.model_dump(mode="json"), prepare=True)
    text = errands.written(errand, tmp_path / "there")
    extensions.forget("stripes")
    assert "restore that of SHA-256" in str(
        errands.answered(errands.done(text, tmp_path / "elsewhere")).refused
    )
    assert not errands.answered(errands.done(text, tmp_path / "there")).refused
    assert known_fingerprint(DataSpec.of(config.data)) is not None


def test_what_a_user_is_to_mend_there_is_an_answer(tmp_path: Path) -> None:
    config = read(sets=["run.device=cuda:7"]).config
    answer = done(Errand(config=config.model_dump(mode="json")), tmp_path)
    assert answer.refused
    with pytest.raises(UserError, match=f"{platform.node()}: .*cuda"):
        errands.refuse(answer)


def test_another_torch_is_refused_and_another_build_is_not() -> None:
    here = errands.versions()
    built = Answer("n1", {**here, "torch": f"{here['torch']}".partition("+")[0] + "+cu999"})
    errands.refuse(built)
    other = Answer("n1", {**here, "torch": "1.0"})
    with pytest.raises(UserError, match=r"n1 has torch 1\.0 \(here .*set python or setup"):
        errands.refuse(other)


def test_a_folder_that_is_not_seen_names_the_node_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"n1 does not see {tmp_path}: choose --runs"):
        errands.refuse(Answer("n1", errands.versions(), (str(tmp_path / ".seen-1"),)))


# --- As a job ---


@pytest.fixture
def place(tmp_path: Path, cluster: PretendedSlurm) -> Iterator[Place]:
    cluster.answers()
    yield Place(tmp_path / "study", "cpu", None, 1)
    left = [path.name for path in (tmp_path / "study" / ".slurm").glob("errand*")]
    assert not left


def sent(place: Place, cluster: PretendedSlurm, said: list[str]) -> Answer:
    return Slurm.send(place, Settings(sbatch=TIME, python=cluster.python), Errand(), said.append)


def test_a_job_brings_the_answer_and_says_why_it_waits(
    place: Place, cluster: PretendedSlurm
) -> None:
    cluster.hold()
    said = list[str]()

    def tell(text: str) -> None:
        said.append(text)
        cluster.hold("queued" not in text)

    settings = Settings(sbatch={**TIME, "gres": "gpu:1"}, python=cluster.python)
    assert Slurm.send(place, settings, Errand(), tell).host == HOST
    assert said[:2] == ["handed over", "queued"]
    (words,) = cluster.calls("sbatch")
    assert {"--array=0-0", "--time=10", "--gres=gpu:1"} <= {*words}
    assert not Slurm.stop(place.folder, "x")  # it is no run


def test_what_is_raised_while_it_waits_takes_it_out_of_the_queue(
    place: Place, cluster: PretendedSlurm
) -> None:
    cluster.hold()

    def tell(text: str) -> None:
        if "queued" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Slurm.send(place, Settings(sbatch=TIME, python=cluster.python), Errand(), tell)
    assert cluster.calls("scancel") == [["1_0"]]
    assert not (cluster.home / "1_0.json").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, r"left no answer: .*FAILED with exit code 1; the end of its log:\nImportError: no t"),
        (181, r"n\d does not see .*study: choose --runs on a file system that nodes share"),
        (137, r"FAILED: SIGKILL \(out of memory\?\); its log is empty"),
    ],
)
def test_a_job_without_an_answer_says_why(
    place: Place, cluster: PretendedSlurm, code: int, words: str
) -> None:
    cluster.fails(code)
    with pytest.raises(UserError, match=words):
        sent(place, cluster, [])


def test_a_job_that_ended_well_is_given_time_for_its_answer_to_be_seen(
    place: Place, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.fails(0)
    monkeypatch.setattr(job, "SECONDS_FOR_AN_ANSWER", 0.3)
    said = list[str]()
    with pytest.raises(UserError, match="COMPLETED"):
        sent(place, cluster, said)
    assert job.OVER in said


@pytest.mark.parametrize("program", ["sbatch", "squeue"])
def test_a_refused_job_is_told_and_an_answer_that_is_none(
    place: Place, cluster: PretendedSlurm, program: str
) -> None:
    cluster.say(program, "sbatch: error: Invalid account")
    with pytest.raises(UserError, match="Invalid account"):
        sent(place, cluster, [])
    (cluster.home / "answer.json").write_text(json.dumps({"node": 3}))
    with pytest.raises(UserError, match=r"the node's answer cannot be read \(node"):
        sent(place, cluster, [])
