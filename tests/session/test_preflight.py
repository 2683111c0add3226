"""A dry run refuses what a run refuses before its first step, in its words, and writes nothing."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import layouts
import pytest
from example_runs import SMALL

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.data.foreseeing import UNREAD
from sagan_bench.evaluation.extractors.inception import Inception
from sagan_bench.runs.keeping import prune
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.training.loop import Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")
Patch = pytest.MonkeyPatch
RESNET = ["model.architecture=resnet", "model.attention.generator=[8]"]
ALL_OF_THEM = ["data.train_images=none", "data.test_images=none", "evaluation.n_floor=2"]


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, *sets]).config


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))


def everything(root: Path) -> dict[str, bytes | None]:
    """Return what lies below a folder, with what files hold."""
    paths = [path for path in root.rglob("*") if not path.is_socket()]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def refused_alike(config: RunConfig, out: Path | None, message: str, **given: Any) -> None:
    """Ask for a plan, a run, and a plan after it: what is refused is refused alike."""
    before = everything(Path())
    with pytest.raises(UserError, match=message) as planned:
        experiment.dry_run(config, out, **given)
    assert everything(Path()) == before
    with pytest.raises(UserError, match=message) as tried:
        experiment.run(config, out=out, **given)
    with pytest.raises(UserError) as again:  # now that the images may be prepared
        experiment.dry_run(config, out, **given)
    assert str(planned.value) == str(tried.value) == str(again.value)


def of_folder(*sets: str, count: int = 24) -> list[str]:
    return [f"data.source=folder:{layouts.folder(Path('pictures'), count)}", *ALL_OF_THEM, *sets]


# --- What is asked for, the data, the machine ---------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["model.attention.generator=[5]"], "asks for side 5"),
        (["model.classes=3"], "model.classes = 3: the dcgan knows none"),
        (["run.device=cuda:99"], "--device cuda:99: "),
        (["data.source=folder:nowhere"], "nowhere"),
        (["data.source=twinz"], "unknown data 'twinz'"),
        (["data.train_images=70000"], "50000 training images; 70000 were asked for"),
        (["data.crop=20"], "nothing to crop to 20"),
        (["training.batch_size=64"], "a batch takes 64 images, the training split has 48"),
        ([*RESNET, "model.classes=3"], "model.classes = 3, and the data have"),
        (["data.train_images=3", "training.batch_size=2"], "3 real images are too few"),
        (["data.test_images=0", "evaluation.split=test"], "no held-out images"),
        (["evaluation.extractor=inception", "run.inception_weights=no"], "no: "),
    ],
)
def test_what_cannot_be_trained_or_scored_is_refused(sets: list[str], message: str) -> None:
    refused_alike(make(*sets), Path("run"), message)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["training.batch_size=64"], "a batch takes 64 images, the training split has"),
        (["run.eval_metrics=rule", "run.eval_every=2"], "folder images follow no rule"),
        ([*RESNET, "model.classes=3"], "model.classes = 3, and the data have 2"),
        (["data.train_images=900"], "900 were asked for"),
    ],
)
def test_pictures_that_are_not_prepared_are_counted(sets: list[str], message: str) -> None:
    refused_alike(make(*of_folder(*sets)), None, message)


def test_a_conditional_network_and_pictures_of_no_class() -> None:
    layouts.folder(Path("pictures"), 40)
    shutil.rmtree("pictures/dog")
    sets = ["data.source=folder:pictures/cat", *ALL_OF_THEM, *RESNET, "model.classes=3"]
    refused_alike(make(*sets), None, "needs two classes or more, the data have one")


def test_weights_that_cannot_be_fetched_are_refused_and_others_said(monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCH_HOME", "hub")
    monkeypatch.setattr(Inception, "url", "http://127.0.0.1:9/weights.pth")
    wanting = make("evaluation.extractor=inception")
    with pytest.raises(UserError, match="cannot download Inception's weights") as planned:
        experiment.dry_run(wanting)
    with pytest.raises(UserError, match="cannot download Inception's weights") as tried:
        experiment.run(wanting)
    assert str(planned.value) == str(tried.value)
    shutil.rmtree("hub", ignore_errors=True)
    Path("weights.pth").write_bytes(b"")
    monkeypatch.setattr(Inception, "url", Path("weights.pth").absolute().as_uri())
    told = experiment.dry_run(wanting)
    assert told["unchecked"] == ["Inception's weights, which are to be downloaded"]
    assert not Path("hub").exists()


def test_a_machine_without_a_compiler_or_tensorboard(monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda command: None)
        refused_alike(make("training.compile=true"), None, "torch needs a compiler")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    refused_alike(make("run.tensorboard=true"), None, "TensorBoard is missing")


def test_a_cache_that_cannot_be_filled(monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
        refused_alike(make(), None, "64 prepared images need")
    Path("file").touch()
    monkeypatch.setenv("SAGAN_BENCH_CACHE", "file")
    refused_alike(make(), None, "cannot write to the cache file/stores: Not a directory")


def test_bad_pictures_that_were_left_out_once() -> None:
    sets = of_folder("run.steps=1")
    Path("pictures/cat/0.png").write_bytes(b"no picture")
    told = experiment.dry_run(make(*sets))
    assert told["unchecked"] == [UNREAD]
    experiment.run(make(*sets, "run.skip_bad=true"))
    refused_alike(make(*sets), None, r"1 of 24 pictures cannot be read:\n  cat/0.png")
    assert "unchecked" not in experiment.dry_run(make(*sets, "run.skip_bad=true"))


# --- The folder ---------------------------------------------------------------------------------


def file_in_the_way(out: Path) -> Path:
    out.touch()
    return out


def below_a_file(out: Path) -> Path:
    return file_in_the_way(out) / "foo" / "bar"


def of_others(out: Path) -> Path:
    out.mkdir()
    (out / "thesis.tex").touch()
    return out


def with_a_damaged_record(out: Path) -> Path:
    out.mkdir()
    (out / "record.json").write_text("{}")
    return out


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (file_in_the_way, "out is no folder; out; choose another --out"),
        (below_a_file, "out is no folder; out/foo/bar; choose another --out"),
        (of_others, "out holds files but neither config.json nor record.json; choose"),
        (with_a_damaged_record, "record.json"),
        (lambda out: Path("/proc/foo/bar"), "/proc; choose a folder that you may use"),
        (lambda out: Path("x" * 300), "name too long; x+; choose a shorter name"),
    ],
)
def test_a_folder_that_cannot_be_a_runs(arrange: Callable[[Path], Path], message: str) -> None:
    refused_alike(make(), arrange(Path("out")), f"(?i){message}")


def test_a_folder_that_may_not_be_written_to(monkeypatch: Patch) -> None:
    experiment.run(make("run.steps=1"), out=Path("warm") / "run")  # the cache is there
    Path("locked").mkdir()
    access = os.access

    def may(path: Any, mode: int) -> bool:
        return Path(path).name != "locked" and access(path, mode)

    monkeypatch.setattr(os, "access", may)
    refused_alike(make(), Path("locked") / "run", "Permission denied; locked; choose a folder")
    # Starting over renames the folder of the run, in that above it.
    Path("warm").rename("locked2")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked2")
    refused_alike(make(), Path("locked2") / "run", "Permission denied", fresh=True)


def test_a_run_that_is_in_use() -> None:
    config = make("run.steps=1")
    digest = experiment.run(config, out=Path("run")).config_digest
    with RunDirectory(Path("run"), digest=digest, config=config.model_dump(mode="json")):
        with pytest.raises(UserError, match="in use by process") as planned:
            experiment.dry_run(config, Path("run"))
        with pytest.raises(UserError, match="in use by process") as tried:
            experiment.run(config, out=Path("run"))
    assert str(planned.value) == str(tried.value)


# --- Going on -----------------------------------------------------------------------------------


def stopped_at(out: Path, step: int) -> None:
    seen = [0]

    def watch(event: object) -> None:
        seen.append(event.step if isinstance(event, Step) else 0)

    def stop() -> str | None:
        return "enough" if max(seen) >= step else None

    with pytest.raises(Stopped):
        experiment.run(make(), out=out, watch=watch, stop=stop)


def test_a_finished_run_of_other_lengths() -> None:
    experiment.run(make("run.steps=2"), out=Path("run"))
    refused_alike(make("run.steps=1"), Path("run"), "finished at step 2, and 1 were asked for")
    assert experiment.dry_run(make("run.steps=3"), Path("run"))["step"] == 2  # it can go on
    prune(Path("run"))
    refused_alike(make("run.steps=3"), Path("run"), "has no training state")
    refused_alike(make("run.steps=2", "seed=1"), Path("run"), "another run is here: seed: 0 here")
    told = experiment.dry_run(make("run.steps=2"), Path("run"))
    assert (told["state"], told["step"]) == ("finished", 2)
    assert experiment.dry_run(make("run.steps=3"), Path("run"), fresh=True)["state"] == "new"


def test_an_interrupted_run_that_cannot_go_on() -> None:
    stopped_at(Path("run"), 4)
    assert experiment.dry_run(make(), Path("run"))["state"] == "interrupted"
    refused_alike(make("run.steps=2"), Path("run"), "already at step 4, beyond the 2 asked for")
    assert experiment.dry_run(make(), Path("run"))["state"] == "interrupted"
    for file in Path("run/checkpoints").iterdir():
        file.write_bytes(b"damaged")
    refused_alike(make(), Path("run"), "every checkpoint is damaged")


def test_tensorboard_is_looked_for_only_where_it_is_wanted() -> None:
    if importlib.util.find_spec("tensorboard"):
        assert experiment.dry_run(make("run.tensorboard=true"))["state"] == "new"
    assert experiment.dry_run(make())["state"] == "new"
