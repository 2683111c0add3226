"""What a dry run says of a folder whose pictures are not, or no longer, prepared."""

import shutil
from pathlib import Path

import layouts
import pytest
from example_runs import SMALL

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.data.store import cache_root
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.training.loop import Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")


def make(pictures: Path, *sets: str) -> RunConfig:
    of = [f"data.source=folder:{pictures}", "data.test_images=none", "data.train_images=none"]
    few = ["evaluation.n_floor=2", "evaluation.n_real=16"]
    return resolve(HOST, sets=[*SMALL, *of, *few, *sets]).config


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, with a run of them after its first step, and the cache lost since."""
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    folder = layouts.folder(tmp_path / "pictures", 40)
    seen: list[object] = []

    def stop() -> str | None:
        return "interrupted" if any(isinstance(one, Step) for one in seen) else None

    with pytest.raises(Stopped):
        experiment.run(make(folder), out=tmp_path / "run", watch=seen.append, stop=stop)
    shutil.rmtree(cache_root())
    return folder


def test_a_run_whose_pictures_are_not_prepared_is_not_called_another(
    pictures: Path, tmp_path: Path
) -> None:
    told = experiment.dry_run(make(pictures), tmp_path / "run")
    assert (told["state"], told["step"]) == ("interrupted", 1)
    assert (told["digest"], told["data_fingerprint"]) == (None, None)


def test_another_run_is_told_by_its_settings_alone(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another run is here: training\.lr_g"):
        experiment.dry_run(make(pictures, "training.lr_g=0.5"), tmp_path / "run")


def test_a_new_run_has_no_digest_before_its_pictures_are_prepared(
    pictures: Path, tmp_path: Path
) -> None:
    told = experiment.dry_run(make(pictures))
    assert (told["run"], told["digest"], told["state"]) == (None, None, "new")
    assert experiment.dry_run(make(pictures), tmp_path / "other")["state"] == "new"
