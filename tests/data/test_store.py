import errno
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
from machines import without_locks
from PIL import Image

from sagan_bench.core import locks
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.progress import unwatched
from sagan_bench.data import building, shapes, store
from sagan_bench.data.building import prepare
from sagan_bench.data.decoding import Chunk
from sagan_bench.data.growing import Growing
from sagan_bench.data.listing import DataSpec, Listing, Part
from sagan_bench.data.sources import _class_folders, twins
from sagan_bench.data.sources._base import Source
from sagan_bench.data.store import Manifest, SplitFacts, known_fingerprint

TWINS = DataSpec("twins", 16, train_images=96, test_images=32)


def manifest(count: int) -> Manifest:
    facts = SplitFacts(images=count, content_sha256="0", images_per_class=(count,))
    return Manifest(
        kind="folder",
        selection=None,
        image_size=4,
        crop=None,
        fit="squash",
        resize="bicubic",
        split_rule="",
        classes=("a",),
        train=facts,
        test=None,
        definition=None,
        pixel_range=(0, 255),
        enlarged=0,
        refused=0,
        refused_first=(),
    )


def pictures(root: Path, count: int, size: tuple[int, int] = (8, 8)) -> DataSpec:
    root.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
    return DataSpec(f"folder:{root}", 8)


def only_store(cache: Path) -> Path:
    (place,) = (path for path in (cache / "stores").iterdir() if path.is_dir())
    return place


class Count:
    """A progress callback that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


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
    monkeypatch.setattr(_class_folders, "_FILES_A_TASK", 7)
    monkeypatch.setattr(twins, "_PIXELS_A_TASK", 7 * 16**2)
    spec_of_files = pictures(tmp_path / "pictures", 60)
    for spec in (TWINS, spec_of_files):
        alone = prepare(spec, tmp_path / "alone", workers=1)
        together = prepare(spec, tmp_path / "together", workers=workers)
        assert together.manifest == alone.manifest
        assert np.array_equal(together.train.images, alone.train.images)


def test_progress_counts_both_splits_up_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_PIXELS_A_TASK", 40 * 16**2)
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
        {"train": SplitFacts(images=9, content_sha256="1", images_per_class=(9,))},
        {"test": SplitFacts(images=9, content_sha256="0", images_per_class=(9,))},
    ],
)
def test_fingerprint_covers_content_and_making(change: dict[str, object]) -> None:
    plain = manifest(9)
    assert plain.model_copy(update=change).fingerprint() != plain.fingerprint()
    assert len(plain.fingerprint()) == 16
    assert int(plain.fingerprint(), 16) >= 0


def test_fingerprint_is_pinned() -> None:
    """Digests of runs hold it: the same content must give it for ever."""
    assert manifest(9).fingerprint() == "282e61c65bca627c"


def test_fingerprint_ignores_names_and_remarks() -> None:
    plain = manifest(9)
    change = {
        "classes": ("z",),
        "split_rule": "other",
        "refused": 1,
        "refused_first": ("x",),
        "selection": "z",
        "enlarged": 3,
        "pixel_range": (1, 2),
        "train": SplitFacts(images=9, content_sha256="0", images_per_class=(4, 5)),
    }
    assert plain.model_copy(update=change).fingerprint() == plain.fingerprint()


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
    assert "mend or remove them, or leave them out with --skip-bad" in message


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
    newer = json.dumps(json.loads(path.read_text()) | {"schema_version": 3})
    path.write_text(newer if text is None else text)
    assert prepare(TWINS, tmp_path).manifest == whole


# --- several processes -----------------------------------------------------------------------

SCRIPT = """
import logging, sys, time
from pathlib import Path
import psutil
from sagan_bench.data import building
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import _class_folders, twins

_class_folders._FILES_A_TASK = 16
twins._PIXELS_A_TASK = 16 * 16**2
building._SECONDS_BETWEEN_CHECKPOINTS = 0
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

def progress(done, total):
    children = [child.pid for child in psutil.Process().children(recursive=True)]
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
    assert sorted(half_done) == [".building", ".json", ".lock"]  # and who holds it
    assert set(progress.calls) <= {(0, 1)}  # built nothing, only asked whether to go on waiting
    assert line(builder, "finished").split()[1] == waited.manifest.train.content_sha256


@pytest.mark.parametrize("number", [0, *sorted(locks.NO_LOCKS)])
def test_what_is_being_prepared_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    if number:
        without_locks(monkeypatch, number)
    prepare(TWINS, tmp_path)
    (place,) = (kept.place for kept in store.prepared(tmp_path))
    with locks.holding(store.lock_of(place)):
        refused = rf"{place.name} is being prepared by process {os.getpid()} on .*; end that"
        with pytest.raises(UserError, match=refused):
            store.remove(place.name, tmp_path)
    store.remove(place.name, tmp_path)
    assert not place.exists()


@pytest.mark.parametrize("kind", [pytest.param("twins", marks=pytest.mark.slow), "folder"])
def test_killed_build_goes_on_and_ends_byte_equal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[[str, Path], subprocess.Popen[str]],
    kind: str,
) -> None:
    spec, source = TWINS, "twins"
    if kind == "folder":
        source = pictures(tmp_path / "pictures", 120).source
        spec = DataSpec(source, 16, train_images=96)
    process = start(source, tmp_path / "cache")
    workers = [int(pid) for pid in line(process, "building").split()[2:]]
    process.kill()
    process.wait()
    unfinished = only_store(tmp_path / "cache")
    assert unfinished.suffix == ".building"
    progress = Count()
    script_sizes(monkeypatch)
    prepare(spec, tmp_path / "cache", progress, workers=1)
    prepare(spec, tmp_path / "other", workers=1)
    assert progress.calls[0][0] > 16  # the first task was not done again
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))
    assert len(workers) >= 2 * (kind == "folder")
    assert all(ended(pid) for pid in workers)


def script_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut sources into the tasks that `SCRIPT` has."""
    monkeypatch.setattr(_class_folders, "_FILES_A_TASK", 16)
    monkeypatch.setattr(twins, "_PIXELS_A_TASK", 16 * 16**2)


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


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


# --- builds that are broken off ----------------------------------------------------------------


class Broken(Exception):
    """Raised from a progress callback."""


def break_off(spec: DataSpec, cache: Path, after: int, **how: bool) -> Path:
    """Begin a build, break it off after so many images, and return its folder."""

    def progress(done: int, total: int) -> None:
        if done >= after:
            raise Broken

    with pytest.raises(Broken):
        prepare(spec, cache, progress, workers=1, **how)
    (place,) = cache.glob("stores/*.building")
    return place


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    script_sizes(monkeypatch)
    monkeypatch.setattr(building, "_SECONDS_BETWEEN_CHECKPOINTS", 0)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("after", [16, 96, 112])  # in train, at its end, in test
def test_broken_off_build_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    break_off(TWINS, tmp_path / "cache", after)
    progress = Count()
    prepare(TWINS, tmp_path / "cache", progress)
    assert progress.calls[0] == (after + 16, 128)
    prepare(TWINS, tmp_path / "other")
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))


@pytest.mark.usefixtures("small_tasks")
def test_rows_after_the_last_note_are_cut_off(tmp_path: Path) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    for name in ("train.images.npy", "train.labels.npy"):
        grow(place / name)
    prepare(TWINS, tmp_path / "cache")
    prepare(TWINS, tmp_path / "other")
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("progress.json", empty),
        ("progress.json", drop),
        ("train.images.npy", cut),
        ("train.labels.npy", cut),
        ("train.images.npy", drop),
    ],
)
def test_damaged_beginning_is_begun_anew(
    tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(break_off(TWINS, tmp_path / "cache", 48) / name)
    progress = Count()
    prepare(TWINS, tmp_path / "cache", progress)
    assert progress.calls[0] == (16, 128)
    prepare(TWINS, tmp_path / "other")
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))


@pytest.mark.usefixtures("small_tasks")
def test_other_tasks_are_not_mistaken_for_those_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(TWINS, tmp_path / "cache", 48)
    monkeypatch.setattr(twins, "_PIXELS_A_TASK", 8 * 16**2)
    progress = Count()
    prepare(TWINS, tmp_path / "cache", progress)
    assert progress.calls[0] == (8, 128)


@pytest.mark.usefixtures("small_tasks")
def test_unfinished_build_of_changed_pictures_is_swept(tmp_path: Path) -> None:
    spec, cache = pictures(tmp_path / "pictures", 40), tmp_path / "cache"
    old = break_off(spec, cache, 16)
    others = break_off(TWINS, tmp_path / "apart", 16)
    kept = others.rename(cache / "stores" / others.name)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures/new.png")
    prepare(spec, cache)
    assert not old.exists()
    assert kept.exists()


@pytest.mark.usefixtures("small_tasks")
def test_after_bad_pictures_it_begins_anew_unless_they_may_be_left_out(tmp_path: Path) -> None:
    spec, cache = pictures(tmp_path / "pictures", 60), tmp_path / "cache"
    (tmp_path / "pictures/bad.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match="1 of 61"):
        prepare(spec, cache)
    with pytest.raises(UserError, match="1 of 61"):  # found again, not merely remembered
        prepare(spec, cache)
    progress = Count()
    assert prepare(spec, cache, progress, skip_bad=True).manifest.refused == 1
    assert progress.calls == []  # all had been decoded


@pytest.mark.usefixtures("small_tasks")
def test_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, rows = Growing.append, 0

    def filling(self: Growing, chunk: Chunk) -> None:
        nonlocal rows
        if (rows := rows + len(chunk.labels)) > 64:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", filling)
        with pytest.raises(UserError, match="disk of the cache is full"):
            prepare(TWINS, tmp_path)
    progress = Count()
    prepare(TWINS, tmp_path, progress)
    assert progress.calls[0] == (80, 128)


def die() -> Chunk:
    os._exit(9)


@pytest.mark.slow
def test_killed_worker_is_explained(tmp_path: Path) -> None:
    class Dying(Source):
        name = "dying"

        def listing(self) -> Listing:
            return Listing(("a",), Part(8, [die] * 8), None, "")

    with (
        pytest.raises(UserError, match="decoding process was killed"),
        building._explained(tmp_path),
    ):
        building._build(tmp_path / "store", Dying(DataSpec("dying:x", 8)), unwatched, 2, False)


def test_enlarged_pictures_are_counted_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = pictures(tmp_path / "pictures", 6, (8, 8))
    assert prepare(spec, tmp_path / "cache").manifest.enlarged == 0
    assert caplog.text == ""
    larger = DataSpec(spec.source, 16)
    assert prepare(larger, tmp_path / "cache").manifest.enlarged == 6
    assert "6 pictures have fewer than 16 pixels" in caplog.text


def test_classes_and_range_are_counted(tmp_path: Path) -> None:
    for name, level in (("a", 3), ("a", 4), ("b", 200)):
        (tmp_path / "x" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), level).save(tmp_path / f"x/{name}/{level}.png")
    data = prepare(DataSpec(f"folder:{tmp_path / 'x'}", 8), tmp_path / "cache")
    counts = np.bincount(data.train.labels, minlength=2)
    assert data.manifest.train.images_per_class == tuple(counts.tolist())
    low, high = data.train.images.min(), data.train.images.max()
    assert data.manifest.pixel_range == (low, high)


# --- content that has changed on the disk ------------------------------------------------------


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train.images.npy", "test.images.npy", "test.labels.npy"])
def test_one_flipped_bit_is_found_and_the_store_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    whole = prepare(TWINS, tmp_path)
    expected = whole.train.images.copy()
    flip(only_store(tmp_path) / name, -8)
    progress = Count()
    again = prepare(TWINS, tmp_path, progress)
    assert progress.calls
    assert np.array_equal(again.train.images, expected)
    assert "is damaged" in caplog.text


def set_label(place: Path, label: int) -> None:
    path = place / "train.labels.npy"
    content = bytearray(path.read_bytes())
    content[-8:] = label.to_bytes(8, "little", signed=True)
    path.write_bytes(content)


@pytest.mark.parametrize("label", [10, -1, 2**62, -(2**62)])
def test_labels_are_checked_whatever_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: int
) -> None:
    monkeypatch.setattr(building, "SMALL_BYTES", 0, raising=False)
    prepare(TWINS, tmp_path)
    set_label(only_store(tmp_path), label)
    assert store.open_store(only_store(tmp_path), False) is None
    assert prepare(TWINS, tmp_path).train.labels.min() >= 0


def test_labels_of_another_class_are_counted(tmp_path: Path) -> None:
    last = int(prepare(TWINS, tmp_path).train.labels[-1])
    set_label(only_store(tmp_path), (last + 1) % 10)
    assert store.open_store(only_store(tmp_path), False) is None


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x93NUMPY\x01\x00\x76\x00{[", b"\x80\x04N."])
def test_file_of_another_type_is_no_internal_error(tmp_path: Path, content: bytes) -> None:
    whole = prepare(TWINS, tmp_path).manifest
    path = only_store(tmp_path) / "train.images.npy"
    path.write_bytes(content + path.read_bytes()[len(content) :])
    assert prepare(TWINS, tmp_path).manifest == whole
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert prepare(TWINS, tmp_path).manifest == whole


def check_until_it_fails(data: store.Store) -> None:
    for _ in range(1000):
        data.verification.check()
        time.sleep(0.01)


def test_large_store_is_verified_beside_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "SMALL_BYTES", 0)
    whole = prepare(TWINS, tmp_path)
    whole.verification.finish()
    flip(only_store(tmp_path) / "train.images.npy")
    damaged = prepare(TWINS, tmp_path)  # opened unseen, and read by nobody yet
    assert not np.array_equal(damaged.train.images, shapes.draw(np.arange(96), seed=0, size=16)[0])
    with pytest.raises(UserError, match="is damaged: the train images are not those"):
        check_until_it_fails(damaged)
    with pytest.raises(UserError, match="same command prepares them anew"):
        damaged.verification.finish()
    mended = prepare(TWINS, tmp_path)
    mended.verification.finish()
    assert np.array_equal(mended.train.images, shapes.draw(np.arange(96), seed=0, size=16)[0])


def test_a_store_is_hashed_once_a_process(tmp_path: Path) -> None:
    first = prepare(TWINS, tmp_path)
    assert prepare(TWINS, tmp_path).verification is first.verification


def test_store_that_cannot_be_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "SMALL_BYTES", 0)
    data = prepare(TWINS, tmp_path)
    (only_store(tmp_path) / "test.images.npy").unlink()
    with pytest.raises(MachineError, match=r"No such file or directory; .*test\.images\.npy"):
        data.verification.finish()


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy"])
def test_what_changed_between_two_attempts_is_begun_anew(tmp_path: Path, name: str) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    flip(place / name, -300)
    prepare(TWINS, tmp_path / "cache")
    prepare(TWINS, tmp_path / "other")
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(("what", "value"), [("tasks", 4), ("tasks", 0), ("images", 16)])
def test_note_with_other_numbers_is_begun_anew(tmp_path: Path, what: str, value: int) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    note = json.loads((place / "progress.json").read_text())
    note["done"]["train"] |= {what: value, "sha256": None}
    (place / "progress.json").write_text(json.dumps(note))
    prepare(TWINS, tmp_path / "cache")
    prepare(TWINS, tmp_path / "other")
    assert contents(only_store(tmp_path / "cache")) == contents(only_store(tmp_path / "other"))


@pytest.mark.usefixtures("small_tasks")
def test_note_that_lacks_a_split_is_begun_anew(tmp_path: Path) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    note = json.loads((place / "progress.json").read_text())
    del note["done"]["test"]
    (place / "progress.json").write_text(json.dumps(note))
    assert prepare(TWINS, tmp_path / "cache").manifest == prepare(TWINS, tmp_path / "o").manifest


@pytest.mark.usefixtures("small_tasks")
def test_build_of_a_version_before_goes_on(tmp_path: Path) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    note = json.loads((place / "progress.json").read_text())
    for done in note["done"].values():
        done.pop("sha256", None)
    (place / "progress.json").write_text(json.dumps(note))
    progress = Count()
    prepare(TWINS, tmp_path / "cache", progress)
    assert progress.calls[0] == (64, 128)


@pytest.mark.usefixtures("small_tasks")
def test_litter_of_killed_writers_is_swept(tmp_path: Path) -> None:
    place = break_off(TWINS, tmp_path / "cache", 48)
    (place / ".manifest.json.0a1b2c3d.tmp").write_bytes(b"{")
    prepare(TWINS, tmp_path / "cache")
    assert sorted(contents(only_store(tmp_path / "cache"))) == [
        "manifest.json",
        "source.txt",
        "test.images.npy",
        "test.labels.npy",
        "train.images.npy",
        "train.labels.npy",
    ]


def test_list_shows_stores_whose_source_is_no_text(tmp_path: Path) -> None:
    prepare(TWINS, tmp_path)
    (only_store(tmp_path) / "source.txt").write_bytes(b"\xff\xfe\n")
    (one,) = store.prepared(tmp_path)
    assert one.manifest is not None


def test_manifest_of_before_is_read(tmp_path: Path) -> None:
    written = json.loads(prepare(TWINS, tmp_path).manifest.model_dump_json())
    assert "remarks" not in written
    assert Manifest.model_validate(written).remarks == ()
