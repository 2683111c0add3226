"""The real side of a score: what is chosen, what is kept, and what is never stale."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_scores import EXTRACTOR, HELD_OUT, REAL, Tiny, figures, tiny
from torch import Tensor, nn

from sagan_bench.core.errors import UserError
from sagan_bench.core.locks import holding
from sagan_bench.core.stops import Stopped
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.reference import reference


class Closed(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError("extracted again")


class Blind(Tiny):
    """An extractor that may not be used: what it is asked for must be in the cache."""

    def build(self, weights: Path) -> nn.Module:
        return Closed()


def test_the_cache_spares_the_extraction(tmp_path: Path) -> None:
    done: list[int] = []
    first = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path / "new", progress=done.append)
    assert sum(done) == 200 + 120
    again: list[int] = []
    ema = tiny(weights="ema", ema_decay=0.9)
    second = reference(REAL, HELD_OUT, ema, Blind(), tmp_path / "new", progress=again.append)
    assert torch.equal(first.pool, second.pool)
    assert (first.floor, first.n_floor) == (second.floor, second.n_floor)
    assert again == [200, 120]
    assert len(list((tmp_path / "new").glob("*.npz"))) == 2


def one_pixel(images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    changed = images.copy()
    changed[:, 0, 0, 0] ^= 1
    return changed


@pytest.mark.parametrize(
    ("real", "held_out", "changes"),
    [
        (one_pixel(REAL), HELD_OUT, {}),
        (REAL, torch.from_numpy(one_pixel(HELD_OUT.numpy())), {}),
        (REAL, HELD_OUT, {"n_real": 199}),
        (REAL, HELD_OUT, {"n_fake": 119}),
        (REAL, HELD_OUT, {"split": "test"}),
        (REAL, HELD_OUT, {"weights_sha256": "1" * 64}),
        (REAL, HELD_OUT, {"resize": "other"}),
        (REAL, HELD_OUT, {"isc_splits": 2}),
        (REAL, HELD_OUT, {"kid_subset_size": 20}),
    ],
)
def test_nothing_stale_comes_from_the_cache(
    real: Any, held_out: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    with pytest.raises(AssertionError, match="extracted again"):
        reference(real, held_out, tiny(**changes), Blind(), tmp_path)


@pytest.mark.parametrize("library", ["torch", "torch-fidelity", "timm"])
def test_features_of_another_version_of_a_library_are_made_again(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)

    def newer(name: str) -> str:
        return version(name) + "+x" * (name == library)

    monkeypatch.setattr("sagan_bench.evaluation.reference.version", newer)
    with pytest.raises(AssertionError, match="extracted again"):
        reference(REAL, HELD_OUT, tiny(), Blind(), tmp_path)


def test_features_of_another_device_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    monkeypatch.setitem(Tiny.batch_images, "meta", 4)
    with pytest.raises(AssertionError, match="extracted again"):
        reference(REAL, HELD_OUT, tiny(), Blind("meta"), tmp_path)


def test_a_damaged_cache_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    for file in tmp_path.glob("*.npz"):
        whole = file.read_bytes()
        middle = bytearray(whole)
        middle[len(whole) // 2] ^= 1
        headless = b"\0" + whole[1:]
        for damaged in (b"", whole[:-1], whole[: len(whole) // 2], bytes(middle), headless):
            caplog.clear()
            file.write_bytes(damaged)
            found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
            assert torch.equal(found.pool, expected.pool)
            assert found.floor == expected.floor
            assert file.read_bytes() == whole
            assert f"{file} is damaged and is made again" in caplog.text
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path / "file" / "cache")
    assert len(found.pool) == 200
    assert "cannot keep" in caplog.text


def test_the_floor_is_what_held_out_images_score(tmp_path: Path) -> None:
    everything = tiny(n_real=260, n_fake=150)
    found = reference(REAL, HELD_OUT, everything, EXTRACTOR, tmp_path)
    pool = extract(EXTRACTOR, torch.from_numpy(REAL)).pool
    assert torch.equal(found.pool, pool)  # all are chosen, in their order
    assert found.floor == figures(HELD_OUT, pool, everything)
    assert found.n_floor == 150


def test_the_choice_is_random_and_always_the_same(tmp_path: Path) -> None:
    half = tiny(n_real=130)
    found = reference(REAL, None, half, EXTRACTOR, tmp_path / "1")
    again = reference(REAL, None, half, EXTRACTOR, tmp_path / "2")
    assert torch.equal(found.pool, again.pool)
    everything = extract(EXTRACTOR, torch.from_numpy(REAL)).pool
    rows = [int((everything == row).all(dim=1).nonzero().item()) for row in found.pool]
    assert rows == sorted(set(rows))
    assert rows[:10] != list(range(10))
    assert rows[-1] > 240


def test_more_real_images_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train split has 260 images, 261 were asked for"):
        reference(REAL, None, tiny(n_real=261), Blind(), tmp_path)


class Counted(Tiny):
    """An extractor slow enough for another process to come by, which notes each use in a file."""

    def build(self, weights: Path) -> nn.Module:
        network = super().build(weights)

        class Noting(nn.Module):
            def forward(self, images: Tensor) -> tuple[Tensor, ...]:
                with open("uses", "a") as file:
                    file.write("x" * len(images))
                time.sleep(0.05)
                return network(images)

        return Noting()


def test_of_several_runs_that_want_features_one_makes_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:  # each as a run in a process of its own would
        wait = threading.Barrier(3)

        def one(_: int) -> Tensor:
            extractor = Counted()
            wait.wait()
            return reference(REAL, None, tiny(), extractor, tmp_path / "new").pool

        first, *others = pool.map(one, range(3))
    assert all(torch.equal(first, other) for other in others)
    assert len(Path("uses").read_text()) == 200


def test_a_run_that_waits_for_features_can_be_stopped(tmp_path: Path) -> None:
    reference(REAL, None, tiny(), EXTRACTOR, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.unlink()

    def stop(images: int) -> None:
        raise Stopped("interrupted", None)

    with holding(file.with_suffix(".lock")), pytest.raises(Stopped):
        reference(REAL, None, tiny(), Blind(), tmp_path, progress=stop)
