"""Images of a run as files: as they were scored, resumable, in forms that others read."""

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run as command
from example_runs import SMALL
from example_scores import adapted
from PIL import Image
from torch_fidelity import calculate_metrics

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.core.errors import UserError
from sagan_bench.core.stops import Stopped
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.runs import records
from sagan_bench.runs.run import Run
from sagan_bench.session import experiment, sample_sets, sampling
from sagan_bench.session.sample_sets import Asked, leave
from sagan_bench.session.scoring import scored_sampler

HOST = Host(bf16=False, extractor="efficientnet-lite0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "run"
    sets = [*SMALL, "run.steps=1", "run.score_weights=[]", "training.batch_size=4"]
    experiment.run(resolve(HOST, sets=sets).config, out=path)
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_sets, "PART_IMAGES", 6)  # two batches of four


def scored(path: Path, n: int, seed: int) -> np.ndarray[Any, Any]:
    """The images that scores are of, (n, S, S, 3)."""
    drawn = sampling.load(path, "ema")
    sample = scored_sampler(drawn.config, drawn.generator)
    return sample_images(sample, n, seed, 4).permute(0, 2, 3, 1).numpy()


def in_files(folder: Path, form: str) -> np.ndarray[Any, Any]:
    if form == "npz":
        return np.asarray(np.load(folder / "images.npz")["arr_0"])
    images: dict[str, Any] = {}
    if form == "png":
        images = {file.name: np.asarray(Image.open(file)) for file in folder.glob("*.png")}
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as archive:
            for name in archive.getnames():
                images[name] = np.asarray(Image.open(archive.extractfile(name)))  # type: ignore[arg-type]
    return np.stack([images[name] for name in sorted(images)])


@pytest.mark.parametrize("form", ["png", "npz", "tar"])
def test_the_images_are_those_that_were_scored_to_the_bit(
    trained: Path, tmp_path: Path, form: str
) -> None:
    made = leave(sampling.load(trained, "ema"), Asked(19, seed=5), tmp_path / "out", form, {})
    assert made == 19
    assert np.array_equal(in_files(tmp_path / "out", form), scored(trained, 19, 5))
    left = {file.suffix for file in (tmp_path / "out").iterdir()} - {".json"}
    assert left == {f".{form}"}


@pytest.mark.parametrize("form", ["png", "npz", "tar"])
def test_what_is_there_is_not_made_again(trained: Path, tmp_path: Path, form: str) -> None:
    drawn, asked, folder = sampling.load(trained, "ema"), Asked(19, seed=5), tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 12:  # in the midst of the second part
            raise Stopped("interrupted", None)

    with pytest.raises(Stopped):
        leave(drawn, asked, folder, form, {}, stop)
    seen: list[tuple[int, int]] = []
    assert leave(drawn, asked, folder, form, {}, lambda *far: seen.append(far)) == 11
    assert seen[0] == (8, 19)
    assert seen[-1] == (19, 19)
    assert np.array_equal(in_files(folder, form), scored(trained, 19, 5))
    assert leave(drawn, asked, folder, form, {}) == 0


def test_a_folder_of_something_else_is_refused(trained: Path, tmp_path: Path) -> None:
    drawn, folder = sampling.load(trained, "ema"), tmp_path / "out"
    leave(drawn, Asked(3), folder, "png", {"digest": "a"})
    for asked, form, digest in (
        (Asked(4), "png", "a"),
        (Asked(3), "npz", "a"),
        (Asked(3), "png", "b"),
    ):
        with pytest.raises(UserError, match=r"other images are there: .* give another --out"):
            leave(drawn, asked, folder, form, {"digest": digest})
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        leave(drawn, Asked(3), folder, "png", {})


def test_what_no_folder_or_disk_holds_is_refused_before_it_is_begun(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "new" / "out"
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 9 * 3 * 32**2)  # of nine, while made
    monkeypatch.setattr(sample_sets, "disk_usage", lambda place: usage)
    asked = (
        (10**14, "png", "--n 100,000,000,000,000: at most 100,000,000 in a folder"),
        (10**12, "tar", "at most 100,000,000 in a folder"),
        (10, "npz", "GiB free; make room, or fewer images"),
    )
    for n, form, told in asked:
        words = ("sample", str(trained), "--n", str(n), "--as", form, "--out", str(out))
        assert command(*words) == 2
        assert told in " ".join(capsys.readouterr().err.split())
        assert not out.parent.exists()
    assert command("sample", str(trained), "--out", str(out), "--n", "9", "--as", "npz") == 0
    picture = ("sample", str(trained), "--out", str(tmp_path / "a.png"))
    assert command(*picture, "--n", "10001") == 2
    assert "at most 10,000 on one picture; take --as png" in capsys.readouterr().err
    assert command(*picture, "--n", "1251", "--interpolate") == 2
    assert "on one picture; take fewer rows" in capsys.readouterr().err


def test_classes_take_turns_and_are_told(tmp_path: Path) -> None:
    sets = [
        *SMALL, "run.steps=1", "run.score_weights=[]", "training.batch_size=4",
        "model.architecture=resnet", "model.classes=10", "model.attention.generator=[]",
        "model.attention.discriminator=[]",
    ]  # fmt: skip
    experiment.run(resolve(HOST, sets=sets).config, out=tmp_path / "run")
    drawn = sampling.load(tmp_path / "run", "ema")
    leave(drawn, Asked(12), tmp_path / "tar", "tar", {})
    rows = list(csv.DictReader((tmp_path / "tar" / "labels.csv").read_text().splitlines()))
    assert [int(row["class"]) for row in rows] == [*range(10), 0, 1]
    assert rows[3]["name"] == drawn.names[3]
    with tarfile.open(next((tmp_path / "tar").glob("*-00000007.tar"))) as archive:
        member = archive.extractfile("00000007.cls")
        assert member is not None
        assert member.read() == b"7"
    leave(drawn, Asked(5, classes=(7, 2)), tmp_path / "npz", "npz", {})
    assert np.load(tmp_path / "npz" / "images.npz")["arr_1"].tolist() == [7, 2, 7, 2, 7]


def test_the_command_leaves_images_and_says_how_many(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert command("sample", str(trained), "--n", "9", "--as", "npz", "--out", out) == 0
    said = capsys.readouterr()
    assert said.out.strip() == out
    assert "9 images made" in said.err
    facts = json.loads((tmp_path / "out" / "samples.json").read_text())
    record = records.read(trained)
    assert (facts["digest"], facts["n"], facts["weights"]) == (record.config_digest, 9, "ema")
    assert command("sample", str(trained), "--n", "9", "--as", "npz", "--out", out) == 0
    assert "0 images made; 9 were there" in capsys.readouterr().err
    assert command("sample", str(trained), "--as", "gif", "--out", out) == 2
    assert "--as gif" in capsys.readouterr().err
    assert command("sample", str(trained), "--as", "png") == 2
    assert "give --out FOLDER" in capsys.readouterr().err


def test_a_grid_can_be_larger(trained: Path, tmp_path: Path) -> None:
    for scale in (1, 3):
        file = tmp_path / f"{scale}.png"
        command("sample", str(trained), "--n", "8", "--scale", str(scale), "--out", str(file))
    small, large = (np.asarray(Image.open(tmp_path / f"{scale}.png")) for scale in (1, 3))
    assert small.shape == (36, 274, 3)
    assert large.shape == (100, 786, 3)
    assert np.array_equal(large[2:98:3, 2:98:3], small[2:34, 2:34])


@pytest.mark.slow
def test_torch_fidelity_gives_the_files_the_fid_that_the_record_has(tmp_path: Path) -> None:
    """It reads the very files itself, by its own code."""
    sets = [*SMALL, "run.steps=1", "evaluation.n_fake=64", "evaluation.n_real=64"]
    record = experiment.run(resolve(HOST, sets=sets).config, out=tmp_path / "run")
    config = Run(tmp_path / "run", record).config
    leave(sampling.load(tmp_path / "run", "ema"), Asked(64), tmp_path / "fake", "png", {})
    for file in (tmp_path / "fake").glob("samples.json"):
        file.unlink()
    store = prepare(DataSpec.of(config.data))
    (tmp_path / "real").mkdir()
    for index, image in enumerate(store.train.images[:64]):
        Image.fromarray(np.asarray(image).transpose(1, 2, 0)).save(tmp_path / f"real/{index}.png")
    assert record.scores
    theirs = calculate_metrics(
        input1=str(tmp_path / "fake"), input2=str(tmp_path / "real"), fid=True, cuda=False,
        feature_extractor=adapted(EfficientNetLite0()), verbose=False,
        save_cpu_ram=True,
    )  # fmt: skip
    ours = record.scores[-1].metrics["fid"]
    assert theirs["frechet_inception_distance"] == pytest.approx(ours, rel=1e-4)
