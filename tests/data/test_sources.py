import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from sagan_bench.core.errors import UserError
from sagan_bench.data import shapes
from sagan_bench.data.decoding import Chunk, Fit, Geometry
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources import open_source
from sagan_bench.data.sources._class_folders import read_files

SQUARE = Geometry(8, None, "centre-crop")


def save(path: Path, colour: object = "red", size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)  # type: ignore[arg-type]
    return path


def read(path: Path, geometry: Geometry = SQUARE) -> np.ndarray:
    chunk = read_files(str(path.parent), [path.name], [0], geometry)
    assert chunk.refused == ()
    return chunk.images[0]


def refusal(path: Path, geometry: Geometry = SQUARE) -> str:
    chunk = read_files(str(path.parent), [path.name], [0], geometry)
    assert chunk.images.shape == (0, 3, geometry.size, geometry.size)
    (message,) = chunk.refused
    assert message.startswith(f"{path.name}: ")
    return message


def listing(root: Path, **wishes: object) -> Listing:
    return open_source(DataSpec(f"folder:{root}", 8, **wishes)).listing()  # type: ignore[arg-type]


def names(source: Listing, split: str) -> list[str]:
    return [name for task in source.parts[split].tasks for name in task.args[1]]  # type: ignore[attr-defined]


def labels(source: Listing, split: str = "train") -> dict[str, int]:
    tasks = [task.args for task in source.parts[split].tasks]  # type: ignore[attr-defined]
    return {name: label for args in tasks for name, label in zip(args[1], args[2], strict=True)}


# --- specs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("twin", "did you mean 'twins'"),
        ("Folder:pictures", "did you mean 'folder:PATH'"),
        ("mnist:/data", "known: celeba:PATH, cifar10:PATH"),
        ("folder", "not complete"),
        ("folder:", "not complete"),
        ("twins:64", "says too much"),
        ("", "unknown data"),
    ],
)
def test_unknown_source_is_refused_with_the_known_ones(source: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(DataSpec(source, 32))
    assert said in str(caught.value)
    assert "known: celeba:PATH, cifar10:PATH" in str(caught.value)


def test_bare_path_to_a_folder_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'folder:"):
        open_source(DataSpec(str(tmp_path), 32))


def test_selection_is_the_word_after_the_last_mark() -> None:
    assert DataSpec("lsun:a#b#cat", 8).selected == (Path("a#b"), "cat")
    assert DataSpec("celeba:a", 8).selected == (Path("a"), None)
    assert DataSpec("celeba:a#b/c", 8).selected == (Path("a#b/c"), None)


def test_path_keeps_colons_and_expands_home() -> None:
    assert DataSpec("folder:a:b", 8).path == Path("a:b")
    assert DataSpec("folder:~/x", 8).path == Path.home() / "x"


# --- twins -----------------------------------------------------------------------------------


def test_twins_is_the_published_set_by_default() -> None:
    source = open_source(DataSpec("twins", 32)).listing()
    assert (source.train.images, source.test and source.test.images) == (50_000, 10_000)
    assert source.classes == shapes.CLASSES


def test_twins_splits_do_not_overlap_and_a_smaller_set_begins_the_same() -> None:
    def drawn(split: str, **wishes: int) -> Chunk:
        return open_source(DataSpec("twins", 16, **wishes)).listing().parts[split].tasks[0]()  # type: ignore[arg-type]

    small, large = drawn("train", train_images=5), drawn("train", train_images=9)
    assert np.array_equal(small.images, large.images[:5])
    expected = shapes.draw(np.arange(50_000, 50_004), seed=0, size=16)
    test = drawn("test", train_images=5, test_images=4)
    assert np.array_equal(test.images, expected[0])
    assert np.array_equal(test.labels, expected[1])


def test_twins_tasks_cover_every_index_once() -> None:
    tasks = open_source(DataSpec("twins", 256, train_images=100)).listing().train.tasks
    spans = [task.args[:2] for task in tasks]  # type: ignore[attr-defined]
    assert len(spans) > 1
    assert [index for span in spans for index in range(*span)] == list(range(100))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"train_images": 50_001}, "50000 training images; 50001"),
        ({"test_images": 10_001}, "10000 test images; 10001"),
        ({"train_images": 0}, "0 training images"),
        ({"crop": 20}, "nothing to crop"),
    ],
)
def test_twins_refuses_what_it_has_not(wishes: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_source(DataSpec("twins", 32, **wishes))  # type: ignore[arg-type]


def test_no_test_split_when_none_is_wanted() -> None:
    assert open_source(DataSpec("twins", 32, test_images=0)).listing().test is None


# --- decoding: every kind of file ------------------------------------------------------------


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "png", "bmp", "webp", "tif", "gif", "ppm"])
def test_every_extension_is_found_and_read(tmp_path: Path, extension: str) -> None:
    path = save(tmp_path / f"a.{extension}", (200, 30, 60))
    assert names(listing(tmp_path), "train") == [path.name]
    pixels = read(path)
    assert pixels.shape == (3, 8, 8)
    assert np.abs(pixels.astype(int) - np.array([200, 30, 60])[:, None, None]).max() <= 4


def test_greyscale_is_repeated(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "l.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "1.png")
    assert (read(tmp_path / "l.png") == 77).all()
    assert (read(tmp_path / "1.png") == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_greyscale_keeps_its_range(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 257 * 3], [32_768, 65_535]], np.uint16).repeat(4, 0).repeat(4, 1)
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 8 8 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(tmp_path / name)
    assert read(tmp_path / name)[:, ::4, ::4].tolist() == [[[0, 3], [128, 255]]] * 3


def test_pixels_without_a_fixed_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "i.tif")
    assert "no fixed range" in refusal(tmp_path / "f.tif")
    assert "beyond 16 bits" in refusal(tmp_path / "i.tif")


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 200, 30]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / "opaque.png")
    Image.new("LA", (8, 8), (0, 51)).save(tmp_path / "grey.png")
    assert read(tmp_path / "clear.png")[:, 0, 0].tolist() == [255, 255, 255]
    assert read(tmp_path / "opaque.png")[:, 0, 0].tolist() == [255, 0, 0]
    assert read(tmp_path / "grey.png")[:, 0, 0].tolist() == [204, 204, 204]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_transparent_palette_entry_is_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=transparency)
    pixels = read(tmp_path / "a.png")
    assert pixels[:, 0, 0].tolist() == [0, 0, 0]
    assert (pixels[:, 1:, 1:] == 255).all()


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # magenta + yellow
    red, green, blue = read(tmp_path / "a.jpg")
    assert red.min() > 240
    assert green.max() < 15
    assert blue.max() < 15


@pytest.mark.parametrize("extension", ["jpg", "png", "tif"])
def test_exif_rotation_is_applied(tmp_path: Path, extension: str) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 16, 8))  # the upper half; turned by 90 degrees it is at the right
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / f"a.{extension}", exif=exif)
    pixels = read(tmp_path / f"a.{extension}")
    assert pixels[:, :, 5:].min() > 240
    assert pixels[:, :, :3].max() < 15


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


# --- decoding: geometry ----------------------------------------------------------------------


def test_an_image_of_the_wanted_size_is_not_touched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), pixels.transpose(2, 0, 1))


def test_centre_crop_keeps_the_middle_and_squash_keeps_all(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 8), "red")
    image.paste("blue", (12, 0, 20, 8))
    image.save(tmp_path / "a.png")
    cropped = read(tmp_path / "a.png")
    squashed = read(tmp_path / "a.png", Geometry(8, None, "squash"))
    assert (cropped == np.array([0, 0, 255], np.uint8)[:, None, None]).all()
    assert squashed[0, 0, 0] == 255
    assert squashed[2].max() > 200


@pytest.mark.parametrize("fit", ["centre-crop", "squash"])
def test_crop_is_in_pixels_of_the_source(tmp_path: Path, fit: Fit) -> None:
    image = Image.new("RGB", (178, 218), "red")
    image.paste("blue", (9, 29, 169, 189))  # the centre 160 x 160 of a CelebA picture
    image.save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png", Geometry(64, 160, fit))
    assert (pixels == np.array([0, 0, 255], np.uint8)[:, None, None]).all()
    assert read(tmp_path / "a.png", Geometry(64, 162, fit))[0].max() > 0


def test_picture_smaller_than_the_crop_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", size=(20, 12))
    assert refusal(path, Geometry(8, 16, "squash")).endswith(
        "20 x 12 pixels are fewer than the crop of 16"
    )


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png").astype(int) - 127).max() <= 3


# --- decoding: refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "extension",
    [
        *("jpg", "png", "bmp", "webp", "tif", "gif", "ppm"),
        *("ico", "dds", "tga", "qoi", "sgi", "pcx"),
    ],
)
def test_truncated_file_is_refused_by_name(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"cut.{extension}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refusal(path)


def test_files_that_are_no_pictures_are_refused_without_their_path(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    for name in ("empty.jpg", "text.png", "script.jpg"):
        assert refusal(tmp_path / name) == f"{name}: not a picture of a known format"
    assert refusal(tmp_path / "gone.jpg") == "gone.jpg: No such file or directory"


@pytest.mark.parametrize("limit", [150, 60])  # above it Pillow warns, above twice it raises
def test_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    path = save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert "decompression bomb" in refusal(path)


def test_the_rest_of_a_chunk_is_kept_in_order(tmp_path: Path) -> None:
    save(tmp_path / "a.png", "red")
    (tmp_path / "b.png").write_bytes(b"")
    save(tmp_path / "c.png", "blue")
    chunk = read_files(str(tmp_path), ["a.png", "b.png", "c.png"], [3, 4, 5], SQUARE)
    assert chunk.labels.tolist() == [3, 5]
    assert chunk.images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert len(chunk.refused) == 1


# --- folder: classes and splits --------------------------------------------------------------


def test_flat_folder_is_one_class(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.png")
    source = listing(tmp_path)
    assert source.classes == ("images",)
    assert set(labels(source).values()) == {0}


def test_classes_are_the_sorted_first_level_folders(tmp_path: Path) -> None:
    for name in ("dog/a", "dog/b", "cat/deep/deeper/a", "cat/b", "ant/a"):
        save(tmp_path / f"{name}.png")
    source = listing(tmp_path)
    assert source.classes == ("ant", "cat", "dog")
    found = labels(source) | labels(source, "test")
    assert found == {
        "ant/a.png": 0,
        "cat/b.png": 1,
        "cat/deep/deeper/a.png": 1,
        "dog/a.png": 2,
        "dog/b.png": 2,
    }


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".cache/b.png"):
        save(tmp_path / name)
    assert names(listing(tmp_path), "train") == ["a.png"]


def test_a_link_back_up_does_not_loop_and_other_links_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/a.png")
    save(tmp_path / "root/x/b.png")
    (tmp_path / "root/x/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/y").symlink_to(tmp_path / "elsewhere")
    source = listing(tmp_path / "root")
    assert sorted(names(source, "train") + names(source, "test")) == ["x/b.png", "y/a.png"]


def test_class_names_that_are_not_utf8_can_be_shown(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    save(Path(folder) / "a.png")
    save(tmp_path / "tea/a.png")
    assert listing(tmp_path).classes == ("caf\\xe9", "tea")


def test_a_tenth_is_held_out_and_adding_pictures_moves_none(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.png").touch()
    before = listing(tmp_path)
    assert 15 <= len(names(before, "test")) <= 50
    assert sorted(names(before, "train") + names(before, "test")) == sorted(
        path.name for path in tmp_path.iterdir()
    )
    assert "10%" in before.split_rule
    for number in range(300, 400):
        (tmp_path / f"{number}.png").touch()
    after = listing(tmp_path)
    assert set(names(before, "train")) < set(names(after, "train"))
    assert set(names(before, "test")) < set(names(after, "test"))


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (3, 1)])
def test_few_pictures_hold_out_at_least_one_but_never_all(
    tmp_path: Path, count: int, held_out: int
) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").touch()
    source = listing(tmp_path)
    assert source.train.images == count - held_out
    assert (source.test.images if source.test else 0) == held_out


@pytest.mark.parametrize("other", ["test", "val"])
def test_splits_of_the_folder_are_used(tmp_path: Path, other: str) -> None:
    for name in ("train/a/1", "train/a/2", "train/b/1", f"{other}/b/9", "extra/1"):
        save(tmp_path / f"{name}.png")
    source = listing(tmp_path)
    assert source.classes == ("a", "b")
    assert labels(source) == {"train/a/1.png": 0, "train/a/2.png": 0, "train/b/1.png": 1}
    assert labels(source, "test") == {f"{other}/b/9.png": 1}
    assert source.split_rule == f"train/ and {other}/ of the folder; unused beside them: 1"


def test_flat_splits(tmp_path: Path) -> None:
    save(tmp_path / "train/1.png")
    save(tmp_path / "val/2.png")
    source = listing(tmp_path)
    assert source.classes == ("images",)
    assert (names(source, "train"), names(source, "test")) == (["train/1.png"], ["val/2.png"])


def test_test_class_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    for name in ("train/a/1", "train/b/1", "test/a/1", "test/c/1"):
        save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"test holds c, which .*train does not"):
        listing(tmp_path)


def test_limits_take_a_fair_beginning(tmp_path: Path) -> None:
    for number in range(200):
        path = tmp_path / f"{'ab'[number // 100]}/{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    whole, part = listing(tmp_path), listing(tmp_path, train_images=40, test_images=5)
    assert names(part, "train") == names(whole, "train")[:40]
    assert names(part, "test") == names(whole, "test")[:5]
    assert (
        10 <= sum(labels(part).values()) <= 30
    )  # both classes, though sorted names would give one
    assert listing(tmp_path, test_images=0).test is None
    with pytest.raises(UserError, match="500 were asked for"):
        listing(tmp_path, train_images=500)


# --- folder: refusals ------------------------------------------------------------------------


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty/.hidden").mkdir(parents=True)
    (tmp_path / "empty/readme.txt").touch()
    file = save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; check the path"):
        listing(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"a\.png is a file"):
        listing(file)
    with pytest.raises(UserError, match=r"no pictures in .*looked for bmp gif jpeg jpg"):
        listing(tmp_path / "empty")


@pytest.mark.parametrize("above", ["data", "data/more", "train"])
def test_one_folder_level_too_many_names_the_right_one(tmp_path: Path, above: str) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / above / name / "1.png")
    with pytest.raises(UserError) as caught:
        listing(tmp_path)
    assert f"did you mean {tmp_path / above}?" in str(caught.value)
    assert "2 folders of images (cat, dog)" in str(caught.value)


def test_one_folder_level_too_many_inside_a_split(tmp_path: Path) -> None:
    for name in ("train/all/cat", "train/all/dog", "test/all/cat"):
        save(tmp_path / name / "1.png")
    with pytest.raises(UserError, match="train is one folder level too high"):
        listing(tmp_path)


def test_lone_folders_with_pictures_are_one_class(tmp_path: Path) -> None:
    save(tmp_path / "img_align_celeba/img_align_celeba/000001.jpg")
    assert listing(tmp_path).classes == ("img_align_celeba",)


def test_loose_pictures_beside_classes_are_refused(tmp_path: Path) -> None:
    for name in ("preview", "cat/1", "dog/1"):
        save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"loose images \(1\) beside folders .*\(cat, dog\)"):
        listing(tmp_path)


def test_class_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    for name in ("train/cat/1", "train/dog/1", "val/cat/1"):
        save(tmp_path / f"{name}.png")
    (tmp_path / "val/dog").mkdir()
    (tmp_path / "train/emu/notes").mkdir(parents=True)
    with pytest.raises(UserError, match=r"2 folders of images \(cat, dog\)") as caught:
        listing(tmp_path)
    assert "emu without any" in str(caught.value)


def test_classes_and_labels_are_those_of_image_folder(tmp_path: Path) -> None:
    for name in ("b/1", "b/deep/2", "B/1", "a/1", "a/.hidden"):
        save(tmp_path / f"{name}.png")
    theirs = ImageFolder(str(tmp_path))
    source = listing(tmp_path)
    assert source.classes == tuple(theirs.classes)
    found = labels(source) | labels(source, "test")
    assert {str(tmp_path / name): label for name, label in found.items()} == {
        path: label for path, label in theirs.samples if "hidden" not in path
    }


# --- keys and workers ------------------------------------------------------------------------


def key(root: Path, **wishes: object) -> str:
    return open_source(DataSpec(f"folder:{root}", 8, **wishes)).key  # type: ignore[arg-type]


def test_key_follows_the_folder_and_the_wish(tmp_path: Path) -> None:
    path = save(tmp_path / "x/a.bmp", size=(8, 8))
    first = key(tmp_path / "x")
    assert key(tmp_path / "x") == first
    keys = {first, key(tmp_path / "x", crop=8), key(tmp_path / "x", fit="squash")}
    keys.add(key(tmp_path / "x", train_images=1))
    keys.add(open_source(DataSpec(f"folder:{tmp_path / 'x'}", 16)).key)
    os.utime(path, ns=(1, 1))
    keys.add(key(tmp_path / "x"))
    save(tmp_path / "x/b.png")
    keys.add(key(tmp_path / "x"))
    save(tmp_path / "y/a.bmp", "blue", size=(8, 8))  # as an archive with fixed times unpacks it
    os.utime(tmp_path / "y/a.bmp", ns=(1, 1))
    keys.add(key(tmp_path / "y"))
    assert len(keys) == 8


def test_tasks_can_be_sent_to_a_process(tmp_path: Path) -> None:
    save(tmp_path / "a.png", "blue")
    task = pickle.loads(pickle.dumps(listing(tmp_path).train.tasks[0]))
    assert task().images[0, :, 0, 0].tolist() == [0, 0, 255]


def test_preparing_imports_no_torch() -> None:
    code = "import sys, sagan_bench.data.building; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
