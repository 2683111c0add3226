"""Folders as users have them: splits by any name, pictures by content, and what is passed over."""

import os
import struct
import zipfile
from pathlib import Path

import layouts
import pytest

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.decoding import Geometry
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources import open_source
from sagan_bench.data.sources._base import Source
from sagan_bench.data.sources._class_folders import read_files

SQUARE = Geometry(8, None, "centre-crop")


def save(root: Path, *names: str, kind: str = "PNG") -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(layouts.encoded(number, (16, 16), kind))


def source(root: Path) -> Source:
    return open_source(DataSpec(f"folder:{root}", 8))


def listing(root: Path) -> Listing:
    return source(root).listing()


def names(found: Listing, split: str) -> set[str]:
    return {name for task in found.parts[split].tasks for name in task.args[1]}  # type: ignore[attr-defined]


def everything(root: Path) -> set[str]:
    found = listing(root)
    return set().union(*(names(found, split) for split in found.parts))


# --- splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("train", "validation"),
        ("train", "dev"),
        ("train", "testing"),
        ("training", "testing"),
        ("Train", "Test"),
        ("TRAIN", "Val"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("trn", "tst"),
        ("trainval", "test"),
        ("seg_train", "seg_test"),
        ("Final_Training", "Final_Test"),
        ("images_train", "images_val"),
        ("train_ds", "valid_ds"),
        ("train_ds", "test-images"),
        ("01_train", "02_test"),
        ("train-1", "test-1"),
        ("birdsTrain", "birdsVal"),
        ("trainA", "testA"),
        ("my.set.train", "my.set.dev"),
    ],
)
def test_splits_by_every_usual_name_are_no_classes(tmp_path: Path, train: str, test: str) -> None:
    save(
        tmp_path, *(f"{s}/{c}/{n}.png" for s in (train, test) for c in ("cat", "dog") for n in "12")
    )
    found = listing(tmp_path)
    assert found.classes == ("cat", "dog")
    assert names(found, "train") == {f"{train}/{c}/{n}.png" for c in ("cat", "dog") for n in "12"}
    assert names(found, "test") == {f"{test}/{c}/{n}.png" for c in ("cat", "dog") for n in "12"}
    assert found.split_rule == f"{train}/ and {test}/ of the folder"


def test_of_test_and_validation_the_first_is_used_and_the_other_named(tmp_path: Path) -> None:
    save(tmp_path, "Train/a/1.png", "Valid/a/2.png", "Testing/a/3.png")
    found = listing(tmp_path)
    assert names(found, "test") == {"Testing/a/3.png"}
    assert found.split_rule.endswith("unused beside them: 1, among them those of Valid/")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train", "extra"), "holds train, a folder of a split, but none for testing"),
        (("Testing", "extra"), "but none for training"),
        (("val", "test"), "but none for training"),
        (("train", "training", "test"), "which all seem to be for training"),
        (("train", "val", "valid"), "which all seem to be for testing"),
        (("train_1", "train_2", "test_1"), "which all seem to be for training"),
        (("train_1", "train_2"), "which all seem to be parts of splits"),
        (("seg_val", "seg_test"), "which all seem to be parts of splits"),
        (("trainA", "trainB"), "which all seem to be parts of splits"),
        (("trainA", "trainB", "testA", "testB"), "trainB: splits of several sets or domains"),
        (("trainA", "trainB", "testA"), "splits of several sets or domains"),
        (("a_train", "a_test", "bc_train", "bc_val"), "splits of several sets or domains"),
        (("seg_train", "seg_test", "cat", "dog"), "seem to be splits, beside cat, dog; move"),
    ],
)
def test_half_a_split_is_refused_in_words(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    save(tmp_path, *(f"{name}/{n}.png" for name in folders for n in "12"))
    with pytest.raises(UserError, match=said):
        listing(tmp_path)


def test_test_pictures_without_classes_are_refused_in_words(tmp_path: Path) -> None:
    save(tmp_path, "train/a/1.png", "train/b/2.png", "test/5.png")
    with pytest.raises(UserError, match="test holds 1 pictures in no class folders; sort them"):
        listing(tmp_path)


@pytest.mark.parametrize(
    "classes",
    [
        ("test_tube", "training_shoe"),
        ("bullet_train", "steam_train"),
        ("bus", "car", "test_tube", "trains"),
        ("bus", "car", "train_1"),
        ("brain", "contest", "strain", "testament"),
        ("dress_test_train", "seg_train"),
    ],
)
def test_classes_may_hold_the_words_of_splits(tmp_path: Path, classes: tuple[str, ...]) -> None:
    save(tmp_path, *(f"{name}/{n}.png" for name in classes for n in "12"))
    assert listing(tmp_path).classes == classes


@pytest.mark.parametrize("inner", ["seg_{}", "Images", "img"])
def test_lone_folder_of_no_meaning_inside_both_splits_is_gone_through(
    tmp_path: Path, inner: str
) -> None:
    places = {split: f"seg_{split}/{inner.format(split)}" for split in ("train", "test")}
    save(tmp_path, *(f"{place}/{c}/1.png" for place in places.values() for c in ("cat", "dog")))
    save(tmp_path, "seg_pred/seg_pred/1.png")
    found = listing(tmp_path)
    assert found.classes == ("cat", "dog")
    assert names(found, "test") == {f"{places['test']}/{c}/1.png" for c in ("cat", "dog")}
    said = f"{places['train']}/ and {places['test']}/ of the folder; unused beside them: 1"
    assert found.split_rule == said


def test_gtsrb_whose_test_pictures_lie_in_no_classes_is_refused_in_words(tmp_path: Path) -> None:
    save(tmp_path, *(f"Final_Training/Images/{c}/1.ppm" for c in ("00000", "00001")), kind="PPM")
    save(tmp_path, "Final_Test/Images/1.ppm", kind="PPM")
    with pytest.raises(UserError, match="Final_Test/Images holds 1 pictures in no class folders"):
        listing(tmp_path)


def test_lone_numbered_class_of_splits_keeps_its_name(tmp_path: Path) -> None:
    save(tmp_path, "train/7/1.png", "test/7/2.png")
    assert listing(tmp_path).classes == ("7",)


def test_splits_inside_classes_may_have_longer_names(tmp_path: Path) -> None:
    save(tmp_path, *(f"{c}/{s}/1.png" for c in ("cat", "dog") for s in ("01_train", "02_test")))
    found = listing(tmp_path)
    assert found.classes == ("cat", "dog")
    assert names(found, "test") == {"cat/02_test/1.png", "dog/02_test/1.png"}


def test_folders_inside_classes_may_hold_the_words_of_splits(tmp_path: Path) -> None:
    save(tmp_path, *(f"{c}/{s}/1.png" for c in ("toy", "real") for s in ("train_01", "train_02")))
    assert listing(tmp_path).classes == ("real", "toy")


def test_images_may_be_a_class_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, "train/images/1.png", "valid/images/2.png")
    assert listing(tmp_path).classes == ("images",)


def test_lone_folder_of_a_split_is_no_class(tmp_path: Path) -> None:
    save(tmp_path, *(f"Training/{number}.png" for number in range(9)))
    found = listing(tmp_path)
    assert found.classes == ("images",)
    assert found.split_rule.startswith("Training/ alone, 10% held out")


def test_splits_inside_classes_are_used(tmp_path: Path) -> None:
    save(
        tmp_path,
        *(f"{c}/{s}/{n}.png" for c in ("cat", "dog") for s in ("Train", "val") for n in "12"),
    )
    found = listing(tmp_path)
    assert found.classes == ("cat", "dog")
    assert names(found, "test") == {f"{c}/val/{n}.png" for c in ("cat", "dog") for n in "12"}
    assert found.split_rule == "Train/ and val/ of each class"
    save(tmp_path, "dog/loose.png")
    with pytest.raises(UserError, match=r"some pictures do not lie in one \(dog/loose\.png\)"):
        listing(tmp_path)


def test_half_a_split_inside_classes_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "cat/train/1.png", "dog/train/2.png")
    with pytest.raises(UserError, match="its classes hold train; expected a folder for training"):
        listing(tmp_path)


def test_a_level_that_all_classes_share_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path, *(f"{c}/images/{n}.png" for c in ("cat", "dog") for n in "12"))
    assert listing(tmp_path).classes == ("cat", "dog")
    assert source(tmp_path).remarks == (
        "no level of classes: images/, which each of 2 folders holds",
    )
    save(tmp_path, "cat/others/1.png")
    assert source(tmp_path).remarks == ()


def test_imagenet_takes_other_names_of_its_splits(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    (tmp_path / "train").rename(tmp_path / "Training")
    (tmp_path / "val").rename(tmp_path / "validation")
    found = open_source(DataSpec(f"imagenet:{tmp_path}", 16)).listing()
    assert found.classes == layouts.WNIDS
    assert (found.train.images, found.test and found.test.images) == (18, 6)


# --- pictures by content ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("q.jfif", "JPEG"),
        ("q.JPE", "JPEG"),
        ("q.avif", "AVIF"),
        ("q.jp2", "JPEG2000"),
        ("q", "JPEG"),
        ("q.dat", "PNG"),
        ("q.txt", "WEBP"),
        ("q.JPG_large", "JPEG"),
        ("q.pnm", "PPM"),
        ("q.bitmap", "BMP"),
        ("q.2024", "GIF"),
        ("q.ico", "ICO"),
        ("q.icon", "ICO"),
        ("q.dds", "DDS"),
        ("q.texture", "DDS"),
        ("q.tga", "TGA"),
        ("q.TGA", "TGA"),
        ("q.qoi", "QOI"),
        ("q.bin", "QOI"),
        ("q.sgi", "SGI"),
        ("q.pcx", "PCX"),
        ("q.scan", "PCX"),
    ],
)
def test_pictures_are_read_whatever_their_ending(tmp_path: Path, name: str, kind: str) -> None:
    root = tmp_path / "root"
    save(root, "a.png")
    save(root, name, f"other{name}", kind=kind)
    assert everything(root) == {"a.png", name, f"other{name}"}
    (remark,) = source(root).remarks
    assert remark.startswith("read under unusual endings: 2 ")
    data = prepare(DataSpec(f"folder:{root}", 8), tmp_path / "cache")
    assert len(data.train) + len(data.test or ()) == 3


def test_texts_and_rubbish_are_no_pictures_by_short_beginnings(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    for number, beginning in enumerate((b"\0\0\1\0", b"\x01\xda", b"\n\5", b"BM", b"\0\0\2\0")):
        (tmp_path / f"{number}.dat").write_bytes(beginning + bytes(range(100)))
    assert everything(tmp_path) == {"a.png"}


def test_only_the_ending_makes_a_tga(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.tga", "c.jpg", kind="TGA")
    read = read_files(str(tmp_path), ["a.png", "b.tga", "c.jpg"], [0] * 3, SQUARE)
    assert read.refused == tuple(
        f"{name}: not a picture of a known format" for name in ("a.png", "c.jpg")
    )


def test_composite_of_a_photoshop_file_is_read(tmp_path: Path) -> None:
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 16, 16, 8, 3) + bytes(12) + bytes(2)
    content = head + b"\xff" * 256 + bytes(512)
    (tmp_path / "a.psd").write_bytes(content)
    (tmp_path / "b.dat").write_bytes(content)
    assert everything(tmp_path) == {"a.psd", "b.dat"}
    read = read_files(str(tmp_path), ["a.psd", "b.dat"], [0] * 2, SQUARE)
    assert read.refused == ()
    assert [read.images[:, channel].min() for channel in range(3)] == [255, 0, 0]


def test_pixels_are_those_of_every_format(tmp_path: Path) -> None:
    kinds = ("BMP", "ICO", "DDS", "TGA", "QOI", "SGI", "PCX")
    save(tmp_path, "a.png")
    for kind in kinds:
        (tmp_path / f"a.{kind.lower()}").write_bytes(layouts.encoded(0, (16, 16), kind))
    read = read_files(str(tmp_path), ["a.png", *(f"a.{k.lower()}" for k in kinds)], [0] * 8, SQUARE)
    assert read.refused == ()
    assert (read.images == read.images[:1]).all()


def test_pictures_under_another_pictures_ending(tmp_path: Path) -> None:
    save(tmp_path / "root", "a.png", "b.gif", kind="AVIF")
    assert prepare(DataSpec(f"folder:{tmp_path / 'root'}", 8), tmp_path / "c").manifest.refused == 0


def test_texts_are_not_opened_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a.png")
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("BMP P1 1 1")
    opened: list[Path] = []
    real = Path.open

    def counting(self: Path, *args: object, **more: object) -> object:
        opened.append(self)
        return real(self, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", counting)
    assert everything(tmp_path) == {"a.png"}
    assert 0 < len(opened) <= 16
    assert source(tmp_path).remarks == (
        "passed over, no pictures by ending or content: 100 .txt (as 0.txt)",
    )


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root, *(f"{c}/{n}.png" for c in "ab" for n in "1234"))
    save(root, "@eaDir/1.png/thumb.png", "a/@eaDir/1.png/thumb.png", "__MACOSX/a/._1.png")
    save(root, ".thumbnails/1.png", "#recycle/a/9.png")
    (root / "a/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "a/x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with zipfile.ZipFile(root / "more.zip", "w") as packed:
        packed.writestr("1.png", b"")
    data = prepare(DataSpec(f"folder:{root}", 8), tmp_path / "cache")
    assert data.manifest.classes == ("a", "b")
    assert len(data.train) + len(data.test or ()) == 8
    assert data.manifest.remarks == (
        "passed over, no pictures by ending or content: 1 .db (as a/Thumbs.db), "
        "1 .heic (as a/x.heic)",
        "passed over, archives left packed: 1 .zip (as more.zip)",
        "passed over: 4 folders of file servers and systems (as #recycle), "
        "1 hidden (as .thumbnails)",
    )


def test_remarks_are_those_of_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "root", "1.png", "2.png")
    spec = DataSpec(f"folder:{tmp_path / 'root'}", 8)
    plain = prepare(spec, tmp_path / "cache").manifest
    assert "remarks" not in plain.model_dump_json()  # as programs of before wrote and read it
    (tmp_path / "root/notes.pdf").touch()
    later = prepare(spec, tmp_path / "cache").manifest
    assert later.remarks == (
        "passed over, no pictures by ending or content: 1 .pdf (as notes.pdf)",
    )
    assert later.fingerprint() == plain.fingerprint()
    assert "1 .pdf" in caplog.text


def test_folder_without_pictures_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(UserError, match=r"no pictures in .*1 \.heic \(as a\.heic\)"):
        source(tmp_path)


def test_impossible_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can be no folder"):
        source(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("name", ["pipe", "pipe.png"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_or_a_link_to_one_is_not_waited_for(
    tmp_path: Path, name: str, *, linked: bool
) -> None:
    root = tmp_path / "pictures"
    save(root, "a.png", "b.png")
    pipe = tmp_path / "elsewhere" if linked else root / name
    os.mkfifo(pipe)
    if linked:
        (root / name).symlink_to(pipe)
    assert everything(root) == {"a.png", "b.png"}
