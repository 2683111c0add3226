import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagan_bench.data import shapes, sources, store
from sagan_bench.data.sources import DataSpec
from sagan_bench.data.store import Manifest, Split, SplitFacts, Store, known_fingerprint, prepare
from sagan_bench.errors import UserError

TWINS = DataSpec("twins", 16, train_images=96, test_images=32)
FACTS = {"kind": "folder", "image_size": 4, "crop": None, "fit": "squash", "resize": "bicubic"}


def numbered(count: int) -> Store:
    """A store whose image and label tell its row; no image equals its mirror image."""
    images = np.zeros((count, 3, 4, 4), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 256
    images[:, 1, 0, 0] = np.arange(count) // 256
    images[:, 2, :, 3] = 255
    facts = SplitFacts(images=count, content_sha256="0")
    manifest = Manifest(
        **FACTS, split_rule="", classes=("a",), train=facts, test=None, definition=None
    )
    return Store(manifest, Split(images, np.arange(count)), None)


def pictures(folder: Path, count: int, size: tuple[int, int] = (8, 8)) -> DataSpec:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return DataSpec(f"folder:{folder}", 8)


def only_store(cache: Path) -> Path:
    (place,) = (path for path in (cache / "stores").iterdir() if path.is_dir())
    return place


class Count:
    """A progress callback that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


# --- batches ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 64), st.integers(0, 2**63), st.integers(0, 5))
def test_an_epoch_has_each_image_at_most_once(count: int, size: int, seed: int, epoch: int) -> None:
    size = min(size, count)
    data, batches = numbered(count), count // size
    drawn = [data.batch(seed, epoch * batches + position, size) for position in range(batches)]
    rows = torch.cat([batch.labels for batch in drawn])
    assert len(set(rows.tolist())) == batches * size > count - size
    images = torch.cat([batch.images for batch in drawn])
    assert torch.equal(images[:, 0, 0, 0] + 256 * images[:, 1, 0, 0].long(), rows)


def test_batch_is_random_access() -> None:
    data = numbered(100)
    alone = data.batch(3, 57, 16)
    store._permutation.cache_clear()
    for index in range(57):
        data.batch(3, index, 16)
    again = data.batch(3, 57, 16)
    assert torch.equal(alone.images, again.images)
    assert torch.equal(alone.labels, again.labels)


def test_batch_is_a_copy_of_its_own() -> None:
    data = numbered(16)
    before = data.train.images.copy()
    data.batch(0, 0, 8).images.fill_(7)
    assert np.array_equal(data.train.images, before)


def test_types_and_shapes() -> None:
    images, labels = numbered(20).batch(0, 0, 6)
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (6, 3, 4, 4))
    assert (labels.dtype, tuple(labels.shape)) == (torch.int64, (6,))


def test_seeds_and_epochs_differ() -> None:
    data = numbered(64)
    orders = [data.batch(seed, epoch, 64).labels for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert all(sorted(order.tolist()) == list(range(64)) for order in orders)


def test_order_is_pinned() -> None:
    """Resuming an old run needs this order for ever: a change must be deliberate."""
    assert numbered(1000).batch(0, 3, 6).labels.tolist() == [221, 434, 475, 289, 579, 122]


def test_flip_mirrors_about_half_and_nothing_else() -> None:
    data = numbered(512)
    plain, flipped = data.batch(5, 9, 256), data.batch(5, 9, 256, flip=True)
    assert torch.equal(plain.labels, flipped.labels)
    mirrored = (flipped.images == plain.images.flip(-1)).flatten(1).all(1)
    same = (flipped.images == plain.images).flatten(1).all(1)
    assert torch.equal(mirrored, ~same)
    assert 90 < int(mirrored.sum()) < 166
    assert torch.equal(data.batch(5, 9, 256, flip=True).images, flipped.images)
    other = data.batch(6, 9, 256, flip=True)
    assert not torch.equal((other.images[:, 2, 0, 0] == 255), mirrored)


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(UserError, match="takes 64 images, the data have 63"):
        numbered(63).batch(0, 0, 64)


# --- preparing: content ----------------------------------------------------------------------


def test_twins_are_stored_as_drawn(tmp_path: Path) -> None:
    data = prepare(TWINS, tmp_path)
    images, labels = shapes.draw(np.arange(96), seed=0, size=16)
    assert data.test is not None
    assert np.array_equal(data.train.images, images)
    assert np.array_equal(data.train.labels, labels)
    assert (len(data.train), len(data.test)) == (96, 32)
    assert isinstance(data.train.images, np.memmap)
    assert not data.train.images.flags.writeable
    content = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert data.manifest.train.content_sha256 == content


def test_folder_is_stored_with_its_labels(tmp_path: Path) -> None:
    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (9, 12), colour).save(tmp_path / "root" / name / f"{number}.png")
    data = prepare(DataSpec(f"folder:{tmp_path / 'root'}", 8), tmp_path / "cache")
    assert data.manifest.classes == ("cat", "dog")
    for split in filter(None, (data.train, data.test)):
        assert np.array_equal(split.images[:, 2, 4, 4] == 255, split.labels == 1)
    assert len(data.train) + len(data.test or ()) == 40


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(sources, "_FILES_A_TASK", 7)
    monkeypatch.setattr(sources, "_TWINS_PIXELS_A_TASK", 7 * 16**2)
    folder = pictures(tmp_path / "pictures", 60)
    for spec in (TWINS, folder):
        alone = prepare(spec, tmp_path / "alone", workers=1)
        together = prepare(spec, tmp_path / "together", workers=workers)
        assert together.manifest == alone.manifest
        assert np.array_equal(together.train.images, alone.train.images)


def test_progress_counts_both_splits_up_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_TWINS_PIXELS_A_TASK", 40 * 16**2)
    progress = Count()
    prepare(TWINS, tmp_path, progress)
    assert progress.calls == [(40, 128), (80, 128), (96, 128), (128, 128)]


def test_second_time_opens_what_is_there(tmp_path: Path) -> None:
    first, progress = prepare(TWINS, tmp_path), Count()
    again = prepare(TWINS, tmp_path, progress)
    assert progress.calls == []
    assert again.manifest == first.manifest
    assert np.array_equal(again.train.images, first.train.images)


def test_changed_folder_is_prepared_anew(tmp_path: Path) -> None:
    spec = pictures(tmp_path / "pictures", 12)
    before = prepare(spec, tmp_path / "cache").manifest
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures/new.png")
    after = prepare(spec, tmp_path / "cache").manifest
    assert after.train.images + (after.test.images if after.test else 0) == 13
    assert after.fingerprint() != before.fingerprint()


def test_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "here"))
    prepare(TWINS)
    assert only_store(tmp_path / "here").name.startswith("twins-16px-")
    monkeypatch.delenv("SAGAN_BENCH_CACHE")
    assert store.cache_root().name == "sagan_bench"


# --- manifests and fingerprints --------------------------------------------------------------


def test_twins_fingerprint_is_known_before_and_follows_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_fingerprint(TWINS, tmp_path)
    assert not tmp_path.joinpath("stores").exists()
    assert prepare(TWINS, tmp_path).manifest.fingerprint() == known
    others = [DataSpec("twins", 32, train_images=96, test_images=32), DataSpec("twins", 16)]
    prints = {known, *(known_fingerprint(spec) for spec in others)}
    monkeypatch.setattr(shapes, "TWINS_VERSION", shapes.TWINS_VERSION + 1)
    prints.add(known_fingerprint(TWINS))
    assert len(prints) == 4


def test_folder_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    here, there = (pictures(tmp_path / name, 12, (8, 12)) for name in ("here", "there"))
    assert known_fingerprint(here, tmp_path / "cache") is None
    first = prepare(here, tmp_path / "cache")
    assert known_fingerprint(here, tmp_path / "cache") == first.manifest.fingerprint()
    assert prepare(there, tmp_path / "cache").manifest == first.manifest
    squashed = DataSpec(here.source, 8, fit="squash")
    assert prepare(squashed, tmp_path / "cache").manifest.fingerprint() != (
        first.manifest.fingerprint()
    )
    assert str(tmp_path) not in first.manifest.model_dump_json()


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 4},
        {"fit": "centre-crop"},
        {"image_size": 8},
        {"resize": "nearest"},
        {"classes": ("a", "b")},
        {"train": SplitFacts(images=9, content_sha256="1")},
        {"test": SplitFacts(images=9, content_sha256="0")},
    ],
)
def test_fingerprint_covers_content_and_making(change: dict[str, object]) -> None:
    manifest = numbered(9).manifest
    assert manifest.model_copy(update=change).fingerprint() != manifest.fingerprint()
    assert len(manifest.fingerprint()) == 16
    assert int(manifest.fingerprint(), 16) >= 0


def test_fingerprint_ignores_names_and_remarks() -> None:
    manifest = numbered(9).manifest
    change = {"classes": ("z",), "split_rule": "other", "refused": 1, "refused_first": ("x",)}
    assert manifest.model_copy(update=change).fingerprint() == manifest.fingerprint()


# --- bad pictures ----------------------------------------------------------------------------


def test_bad_pictures_stop_it_by_name(tmp_path: Path) -> None:
    spec = pictures(tmp_path / "pictures", 20)
    for number in range(12):
        (tmp_path / f"pictures/bad{number:02d}.jpg").write_bytes(b"no")
    with pytest.raises(UserError) as caught:
        prepare(spec, tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith("12 of 32 pictures cannot be read:\n  bad00.jpg: ")
    assert "bad09.jpg" in message
    assert "bad10.jpg" not in message
    assert "... and 2 more" in message
    assert "mend or remove them" in message
    assert not [path for path in (tmp_path / "cache/stores").iterdir() if path.is_dir()]


def test_skip_bad_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    spec = pictures(tmp_path / "pictures", 20)
    clean = prepare(spec, tmp_path / "cache").manifest
    (tmp_path / "pictures/bad.jpg").write_bytes(b"no")
    data = prepare(spec, tmp_path / "cache", skip_bad=True)
    assert (len(data.train), data.manifest.train) == (clean.train.images, clean.train)
    assert data.manifest.refused == 1
    assert data.manifest.refused_first == ("bad.jpg: not a picture of a known format",)
    assert data.manifest.fingerprint() == clean.fingerprint()
    progress = Count()
    prepare(spec, tmp_path / "cache", progress, skip_bad=True)
    assert progress.calls == []
    with pytest.raises(UserError, match=r"1 of 21 .*\n.*bad\.jpg"):
        prepare(spec, tmp_path / "cache")


def test_no_readable_picture(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/bad.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match=r"no picture of the train split.*\n.*bad\.jpg"):
        prepare(DataSpec(f"folder:{tmp_path / 'pictures'}", 8), tmp_path / "cache", skip_bad=True)


# --- the disk --------------------------------------------------------------------------------


def test_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**31, 2**31, 2**27))
    with pytest.raises(UserError, match=r"60000 prepared .* 0\.17 GiB, .* has 0\.12 GiB free"):
        prepare(DataSpec("twins", 32), tmp_path)


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to the cache .*SAGAN_BENCH_CACHE"):
        prepare(TWINS, tmp_path / "file")


def drop(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_count(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("harm", [drop, cut, grow, empty, other_count])
@pytest.mark.parametrize("name", ["train.images.npy", "test.images.npy", "train.labels.npy"])
def test_damaged_store_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], name: str
) -> None:
    whole = prepare(TWINS, tmp_path).manifest
    harm(only_store(tmp_path) / name)
    progress = Count()
    again = prepare(TWINS, tmp_path, progress)
    assert progress.calls
    assert again.manifest == whole
    assert np.array_equal(again.train.images, shapes.draw(np.arange(96), seed=0, size=16)[0])
    assert "is damaged and will be built again" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "{}", None])
def test_damaged_manifest_is_built_again(tmp_path: Path, text: str | None) -> None:
    whole = prepare(TWINS, tmp_path).manifest
    path = only_store(tmp_path) / "manifest.json"
    newer = json.dumps(json.loads(path.read_text()) | {"schema_version": 2})
    path.write_text(newer if text is None else text)
    assert prepare(TWINS, tmp_path).manifest == whole


# --- several processes -----------------------------------------------------------------------

SCRIPT = """
import logging, sys, time
from pathlib import Path
import psutil
from sagan_bench.data import sources
from sagan_bench.data.sources import DataSpec
from sagan_bench.data.store import prepare

sources._FILES_A_TASK = 16
sources._TWINS_PIXELS_A_TASK = 16 * 16**2
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

def progress(done, total):
    children = [child.pid for child in psutil.Process().children()]
    print("building", done, *children, flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)

test_images = 32 if sys.argv[1] == "twins" else None
spec = DataSpec(sys.argv[1], 16, train_images=96, test_images=test_images)
store = prepare(spec, Path(sys.argv[2]), progress, workers=2)
print("finished", store.manifest.train.content_sha256, flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Start a process that prepares, but stops at its first progress until ``go`` exists."""
    running: list[subprocess.Popen[str]] = []

    def start(source: str, cache: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, source, str(cache), str(tmp_path / "go")]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        with process:
            process.kill()


def line(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line of a process that begins so; whatever comes before it is passed over."""
    assert process.stdout is not None
    return next(text for text in process.stdout if text.startswith(beginning))


def test_two_processes_build_once(
    tmp_path: Path,
    start: Callable[[str, Path], subprocess.Popen[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    builder, progress = start("twins", tmp_path / "cache"), Count()
    line(builder, "building")
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(prepare, TWINS, tmp_path / "cache", progress)
        while "waiting for another process" not in caplog.text:
            assert not waiter.done()
            time.sleep(0.01)
        half_done = [path.suffix for path in (tmp_path / "cache/stores").iterdir()]
        (tmp_path / "go").touch()
        waited = waiter.result()
    assert sorted(half_done) == [".building", ".lock"]
    assert set(progress.calls) <= {(0, 1)}  # built nothing, only asked whether to go on waiting
    assert line(builder, "finished").split()[1] == waited.manifest.train.content_sha256


@pytest.mark.parametrize("kind", [pytest.param("twins", marks=pytest.mark.slow), "folder"])
def test_killed_build_is_cleared_and_done_again(
    tmp_path: Path, start: Callable[[str, Path], subprocess.Popen[str]], kind: str
) -> None:
    spec, source = TWINS, "twins"
    if kind == "folder":
        source = pictures(tmp_path / "pictures", 120).source
        spec = DataSpec(source, 16, train_images=96)
    process = start(source, tmp_path / "cache")
    workers = [int(pid) for pid in line(process, "building").split()[2:]]
    process.kill()
    process.wait()
    (left,) = (path for path in (tmp_path / "cache/stores").iterdir() if path.is_dir())
    assert left.suffix == ".building"
    again = prepare(spec, tmp_path / "cache", workers=1)
    assert only_store(tmp_path / "cache").suffix == ""
    assert again.manifest == prepare(spec, tmp_path / "other", workers=1).manifest
    assert len(workers) >= 2 * (kind == "folder")
    assert all(ended(pid) for pid in workers)


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
