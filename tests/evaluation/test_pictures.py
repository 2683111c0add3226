"""Folders of pictures, scored: the figures are torch-fidelity's own of the same files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from example_scores import Tiny, adapted, figures, pictures, registered, tiny
from PIL import Image
from torch import Tensor
from torch_fidelity import calculate_metrics

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data.decoding import Geometry
from sagan_bench.data.pictures import common_size, listed, read
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.pictures import Folders, score_folders


@pytest.fixture(autouse=True)
def _known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    with registered(EXTRACTORS, "tiny", Tiny):
        yield


def leave(folder: Path, images: Tensor, ending: str = "png") -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:04d}.{ending}")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """60 generated pictures in one folder, 80 real ones in folders of classes, as JPEG."""
    leave(tmp_path / "real" / "cats", pictures(50, seed=1), "jpg")
    leave(tmp_path / "real" / "dogs" / "small", pictures(30, seed=2), "jpg")
    fake = leave(tmp_path / "fake", pictures(60, seed=3, shift=0.1))
    return Folders(fake, tmp_path / "real", extractor="tiny")


def test_the_fid_of_two_folders_is_torch_fidelitys_own(folders: Folders) -> None:
    """It reads the very files itself, by its own code."""
    theirs = calculate_metrics(
        input1=str(folders.fake), input2=str(folders.real), samples_find_deep=True, fid=True,
        feature_extractor=adapted(Tiny()), cuda=False, save_cpu_ram=True, verbose=False,
        batch_size=4,
    )  # fmt: skip
    ours = score_folders(folders).metrics["fid"]
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours
    assert ours > 0.01


def test_figures_are_those_of_the_same_arrays(tmp_path: Path) -> None:
    """PNG keeps every pixel, and no order of files changes a moment."""
    real, fake = pictures(80, seed=1), pictures(60, seed=3, shift=0.1)
    folders = Folders(
        leave(tmp_path / "fake", fake), leave(tmp_path / "real", real), extractor="tiny"
    )
    made = score_folders(folders)
    protocol = tiny(n_real=80, n_fake=60)
    expected = figures(fake, extract(Tiny(), real).pool, protocol)
    for key in ("fid", "precision", "recall"):
        assert made.metrics[key] == pytest.approx(expected[key], rel=1e-6), key
    assert made.metrics.keys() == expected.keys()


def test_the_protocol_knows_the_real_pictures_by_their_content(
    folders: Folders, tmp_path: Path
) -> None:
    made = score_folders(folders)
    again = score_folders(folders)
    assert made == again
    assert made.protocol["z_law"] == "pictures of a folder"
    assert (made.protocol["n_real"], made.n_fake) == (80, 60)
    moved = folders.real.rename(tmp_path / "moved")
    assert score_folders(replace(folders, real=moved)).fingerprint == made.fingerprint
    leave(moved / "birds", pictures(1, seed=9))
    assert score_folders(replace(folders, real=moved)).fingerprint != made.fingerprint


def test_fewer_pictures_are_a_sample_and_another_protocol(folders: Folders) -> None:
    some = score_folders(replace(folders, n_fake=40))
    assert some.n_fake == 40
    assert some.fingerprint != score_folders(folders).fingerprint
    assert listed(folders.fake, 40) == listed(folders.fake)[:40]
    assert listed(folders.fake, 40) != sorted(listed(folders.fake))[:40]
    with pytest.raises(UserError, match="has 60 generated images; 61 were asked for"):
        score_folders(replace(folders, n_fake=61))


def test_pictures_are_brought_to_a_size_as_data_are(folders: Folders, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "red").save(folders.real / "cats" / "wide.png")
    with pytest.raises(UserError, match=r"wide\.png has 40 x 20.* `score --size SIDE`"):
        score_folders(folders)
    made = score_folders(replace(folders, size=16))
    assert made.protocol["n_real"] == 81
    name = listed(folders.fake)[0]
    own = np.asarray(Image.open(folders.fake / name)).transpose(2, 0, 1)
    assert np.array_equal(read(folders.fake, [name], Geometry(16, None, "centre-crop"))[0], own)
    assert common_size([(folders.fake, listed(folders.fake))]) == 16


def test_too_few_pictures_make_figures_doubtful(folders: Folders) -> None:
    """As in runs: fewer images than the features are wide."""
    made = score_folders(replace(folders, n_fake=20))
    assert any(text.startswith("n<d: FID[tiny] from 20 generated images") for text in made.warnings)
    assert not any("real images has" in text for text in made.warnings)


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code, out = run("score", *options), capsys.readouterr()
    return code, out.err if code else out.out


def test_the_command_line(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--fake", str(folders.fake), "--real", str(folders.real), "--extractor", "tiny"]
    code, said = printed(capsys, *where)
    fingerprint = score_folders(folders).fingerprint
    assert (code, f"protocol {fingerprint}, features of tiny" in said) == (0, True)
    code, said = printed(capsys, *where, "--metrics", "fid, kid_mean", "--json")
    assert json.loads(said)["metrics"].keys() == {"fid", "kid_mean", "kid_std"}
    assert json.loads(said)["fingerprint"] == fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--metrics", "fic"], "metric fic: did you mean 'fid'?"),
        (["--metrics", "twin_rate"], "metric twin_rate"),
        (["--metrics", "intra_fid"], "plain folders of pictures do not have it"),
        (["--extractor", "tinny"], "--extractor tinny: did you mean 'tiny'?"),
        (["--n-fake", "3"], "--n-fake 3: too few to score; use 4 or more"),
        (["--n-fake", "0"], "--n-fake"),
        (["--real", "nowhere"], "there is no folder nowhere"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_what_is_wrong_is_said(
    folders: Folders, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    where = ["--fake", str(folders.fake), "--real", str(folders.real), "--extractor", "tiny"]
    code, said = printed(capsys, *where, *change)
    assert code == 2
    assert words in said
    assert "evaluation." not in said  # which this command does not have


def test_a_folder_against_itself_and_damaged_pictures(
    folders: Folders, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    same = score_folders(replace(folders, real=folders.fake))
    assert same.metrics["fid"] == pytest.approx(0, abs=1e-3)
    victim = next(folders.fake.glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(
        UserError, match=rf"1 of 60 pictures in .* cannot be read:\n  {victim.name}"
    ):
        score_folders(folders)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no pictures in"):
        score_folders(replace(folders, fake=tmp_path / "none"))
