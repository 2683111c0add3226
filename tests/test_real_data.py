"""Training and scoring on every kind of data, from the layouts that users have on disk."""

import math
from pathlib import Path

import layouts
import pytest
from example_runs import SMALL

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.data.store import Manifest
from sagan_bench.runs import records
from sagan_bench.session import experiment

HOST = Host(bf16=False, extractor="efficientnet-lite0")
FEWER = [
    "run.steps=2", "run.sample_every=2", "data.train_images=none", "data.test_images=none",
    "evaluation.n_real=8", "evaluation.n_fake=8", "evaluation.n_floor=2",
]  # fmt: skip


def celeba(root: Path) -> str:
    return f"celeba:{layouts.celeba(root)}#Smiling"


def celeba_of_the_seed(root: Path) -> str:
    return f"celeba:{layouts.celeba(root, 60, 'seed')}"


def lsun(root: Path) -> str:
    return f"lsun:{layouts.lsun(root, tower_train=12, tower_val=4)}#tower_train"


def imagenet(root: Path) -> str:
    return f"imagenet:{layouts.imagenet(root)}"


def cifar10(root: Path) -> str:
    return f"cifar10:{layouts.cifar10(root)}"


def cifar100(root: Path) -> str:
    return f"cifar100:{layouts.cifar100(root)}"


def folder(root: Path) -> str:
    return f"folder:{layouts.folder(root)}"


def make(source: str, *sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, *FEWER, f"data.source={source}", *sets]).config


OTHERS = [(celeba_of_the_seed, 1), (lsun, 1), (cifar100, 100), (imagenet, 3), (folder, 2)]


@pytest.mark.parametrize(
    ("write", "classes"),
    [
        (celeba, 2),
        (cifar10, 10),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS),
    ],
)
def test_train_and_evaluate(tmp_path: Path, write: object, classes: int) -> None:
    source = write(tmp_path / "data")  # type: ignore[operator]
    path = tmp_path / "run"
    record = experiment.run(make(source), out=path)
    assert record.status == "finished"
    assert record.data is not None
    manifest = Manifest.model_validate(record.data.manifest)
    assert (manifest.kind, len(manifest.classes)) == (source.partition(":")[0], classes)
    assert manifest.crop == (160 if manifest.kind == "celeba" else None)
    assert str(tmp_path) not in manifest.model_dump_json()
    held_out = experiment.evaluate(
        path, make(source, "evaluation.split=test", "evaluation.n_real=4")
    )
    splits = {score.protocol["split"]: score for score in held_out.scores}
    assert splits.keys() == {"train", "test"}
    for score in splits.values():
        value = score.metrics["fid"]
        assert value is not None
        assert math.isfinite(value)
        assert "twin_rate" not in score.metrics
        assert score.protocol["data"] == record.data.fingerprint


def test_unreadable_pictures_are_left_out_when_asked(tmp_path: Path) -> None:
    source = folder(tmp_path / "data")
    (tmp_path / "data/cat/bad.png").write_bytes(b"no")
    record = experiment.run(make(source, "run.skip_bad=true"), out=tmp_path / "run")
    assert record.data is not None
    assert record.data.manifest["refused_first"] == ["cat/bad.png: not a picture of a known format"]


def test_moved_data_are_the_same_run(tmp_path: Path) -> None:
    folder(tmp_path / "here")
    first = experiment.run(make(f"folder:{tmp_path / 'here'}"), out=tmp_path / "run")
    (tmp_path / "here").rename(tmp_path / "there")
    again = experiment.run(make(f"folder:{tmp_path / 'there'}"), out=tmp_path / "run")
    assert again == first == records.read(tmp_path / "run")
