import os
import pickle
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources import open_source
from sagan_bench.data.store import Store


def listing(root: Path, word: str = "", **wishes: object) -> Listing:
    return open_source(DataSpec(f"celeba:{root}{word}", 32, 160, **wishes)).listing()  # type: ignore[arg-type]


def names(source: Listing, split: str) -> list[str]:
    return [name for task in source.parts[split].tasks for name in task.args[1]]  # type: ignore[attr-defined]


def labels(source: Listing, split: str = "train") -> dict[str, int]:
    tasks = [task.args for task in source.parts[split].tasks]  # type: ignore[attr-defined]
    return {name: label for args in tasks for name, label in zip(args[1], args[2], strict=True)}


def number_of(name: str) -> int:
    return int(name[:6]) - 1


def prepared(tmp_path: Path, source: str, **wishes: object) -> Store:
    return prepare(DataSpec(source, 32, 160, **wishes), tmp_path / "cache")  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["torchvision", "authors", "kaggle"])
def test_splits_are_those_of_the_partition_file(tmp_path: Path, layout: str) -> None:
    source = listing(layouts.celeba(tmp_path / "data", layout=layout))
    for split, part in (("train", 0), ("test", 2)):
        expected = {n for n in range(18) if layouts.part_of(n) == part}
        found = names(source, split)
        assert {number_of(name) for name in found} == expected
        assert len(found) == len(expected)
    assert source.classes == ("faces",)
    assert "0 for training, 2 for testing" in source.split_rule


@pytest.mark.parametrize("layout", ["torchvision", "authors", "kaggle"])
def test_an_attribute_makes_two_classes(tmp_path: Path, layout: str) -> None:
    source = listing(layouts.celeba(tmp_path / "data", layout=layout), "#Smiling")
    assert source.classes == ("not Smiling", "Smiling")
    found = labels(source) | labels(source, "test")
    assert len(found) == 14
    assert all(label == layouts.smiles(number_of(name)) for name, label in found.items())


def test_pixels_are_the_centre_160_resized(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    data = prepared(tmp_path, f"celeba:{root}#Smiling")
    order = names(listing(root, "#Smiling"), "train")
    for row, name in enumerate(order):
        whole = Image.open(root / "img_align_celeba" / name)
        expected = whole.crop((9, 29, 169, 189)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(data.train.images[row], np.asarray(expected).transpose(2, 0, 1))
        assert data.train.labels[row] == layouts.smiles(number_of(name))
    assert (data.manifest.kind, data.manifest.selection) == ("celeba", "Smiling")
    assert (data.manifest.crop, data.manifest.enlarged) == (160, 0)


def test_the_same_faces_have_one_fingerprint_in_every_layout(tmp_path: Path) -> None:
    prints = {
        prepared(
            tmp_path, f"celeba:{layouts.celeba(tmp_path / layout, layout=layout)}"
        ).manifest.fingerprint()
        for layout in ("torchvision", "authors", "kaggle")
    }
    assert len(prints) == 1


def test_plain_folder_of_the_seed_projects_users(tmp_path: Path) -> None:
    source = listing(layouts.celeba(tmp_path / "data", layout="seed"))
    assert source.classes == ("faces",)
    assert "10% held out" in source.split_rule
    assert len(names(source, "train")) + len(names(source, "test")) == 18


def test_loose_pictures_without_text_files(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data", layout="seed") / "faces"
    source = listing(root)
    assert source.classes == ("faces",)
    assert source.train.images + (source.test.images if source.test else 0) == 18


def test_limits_take_a_fair_beginning(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    whole, part = listing(root), listing(root, train_images=4, test_images=1)
    assert names(part, "train") == names(whole, "train")[:4]
    assert names(part, "test") == names(whole, "test")[:1]
    assert listing(root, test_images=0).test is None


def test_key_follows_pictures_texts_and_attribute(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")

    def key(word: str = "") -> str:
        return open_source(DataSpec(f"celeba:{root}{word}", 32, 160)).key

    keys = [key(), key("#Smiling"), key("#Young")]
    text = root / "list_eval_partition.txt"
    text.write_text(text.read_text().replace("000001.jpg 0", "000001.jpg 2"))
    keys.append(key())
    (root / "img_align_celeba/000019.jpg").write_bytes(layouts.encoded(19, (178, 218)))
    keys.append(key())
    assert len(set(keys)) == 5


def test_tasks_can_be_sent_to_a_process(tmp_path: Path) -> None:
    task = pickle.loads(pickle.dumps(listing(layouts.celeba(tmp_path / "data")).train.tasks[0]))
    assert task().images.shape == (10, 3, 32, 32)


# --- refusals ----------------------------------------------------------------------------------


def test_missing_pictures_are_counted_and_named(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    for number in (1, 4):
        (root / f"img_align_celeba/{number:06d}.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 2 of the 14 .*\(000001\.jpg, 000004\.jpg\)"):
        listing(root)


def test_unknown_attribute_shows_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no attribute smiling; known: 5_o_Clock_Shadow, Male"):
        listing(layouts.celeba(tmp_path / "data"), "#smiling")


def test_attribute_without_its_file(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(UserError, match=r"#Smiling needs list_attr_celeba"):
        listing(root, "#Smiling")
    with pytest.raises(UserError, match=r"#Smiling needs list_attr_celeba"):
        listing(layouts.celeba(tmp_path / "seed", layout="seed"), "#Smiling")


def test_attributes_that_lack_pictures(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    text = root / "list_attr_celeba.txt"
    text.write_text("".join(text.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"says nothing of 1 pictures \(000018\.jpg\)"):
        listing(root, "#Smiling")


@pytest.mark.parametrize("row", ["000003.jpg", "000003.jpg x", "000003.jpg 0 nine"])
def test_damaged_line_is_named(tmp_path: Path, row: str) -> None:
    root = layouts.celeba(tmp_path / "data")
    text = root / "list_eval_partition.txt"
    lines = text.read_text().splitlines()
    text.write_text("\n".join([*lines[:2], row, *lines[3:]]))
    with pytest.raises(UserError, match=r"list_eval_partition\.txt, line 3: expected NAME"):
        listing(root)


def test_bad_picture_is_refused_by_name(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    (root / "img_align_celeba/000001.jpg").write_bytes(layouts.encoded(0, (178, 218))[:900])
    with pytest.raises(UserError, match=r"1 of 14 pictures cannot be read:\n  000001\.jpg: "):
        prepared(tmp_path, f"celeba:{root}")


@pytest.mark.parametrize("made", [False, True])
def test_nothing_there(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="no pictures in" if made else "there is no folder"):
        listing(tmp_path / "data")


def partition(count: int = 18) -> str:
    return "".join(f"{n + 1:06d}.jpg {layouts.part_of(n)}\n" for n in range(count))


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii"]
)
@pytest.mark.parametrize("name", ["list_eval_partition.txt", "list_attr_celeba.txt"])
def test_text_files_are_read_in_any_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    root = layouts.celeba(tmp_path / "data")
    plain = listing(root, "#Smiling")
    text = (root / name).read_text()
    (root / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    other = listing(root, "#Smiling")
    for split in ("train", "test"):
        assert names(other, split) == names(plain, split)
        assert labels(other, split) == labels(plain, split)


@pytest.mark.parametrize("name", ["list_eval_partition", "list_attr_celeba"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"18\n",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\xff\xfe",
        b"\x89PNG\r\n\x1a\n\0\0\xff",
        b"PK\x03\x04\xff\xff",
        b"000001.jpg \0\0\0\0\0\0",
        b"18\n5_o_Clock_Shadow Male Smiling Young\n",
        b"18\n5_o_Clock_Shadow Male Smiling Young\n000001.jpg -1 1",
        b"000001.jpg 0\n000002.jpg 0\n",
        b"000001.jpg 1e400\n",
    ],
)
@pytest.mark.parametrize("layout", ["torchvision", "kaggle"])
def test_damaged_text_file_is_refused_by_name(
    tmp_path: Path, layout: str, name: str, content: bytes
) -> None:
    root = layouts.celeba(tmp_path / "data", layout=layout)
    (text,) = root.glob(f"{name}.*")
    text.write_bytes(content)
    with pytest.raises(UserError, match=name):
        listing(root, "#Smiling")


@pytest.mark.parametrize("rows", [3, 10, 17])  # none for testing, some, all but one of validation
def test_partition_that_lacks_pictures(tmp_path: Path, rows: int) -> None:
    root = layouts.celeba(tmp_path / "data")
    text = root / "list_eval_partition.txt"
    text.write_text(partition(rows))
    first = f"{rows + 1:06d}"
    said = (
        rf"list_eval_partition\.txt says nothing of {18 - rows} of the 18 pictures \({first}\.jpg"
    )
    with pytest.raises(UserError, match=said):
        listing(root)


@pytest.mark.parametrize("layout", ["torchvision", "kaggle"])
@pytest.mark.parametrize("name", ["list_eval_partition", "list_attr_celeba"])
@pytest.mark.parametrize("number", [1, 2, 4, 10, 18])
@pytest.mark.parametrize("changed", ["{n}jpg", "{n}", "{n}\xadjpg", "{other}.jpg", "0x{n}.jpg"])
def test_damaged_name_in_any_line_is_refused(
    tmp_path: Path, layout: str, name: str, number: int, changed: str
) -> None:
    root = layouts.celeba(tmp_path / "data", layout=layout)
    (path,) = root.glob(f"{name}.*")
    text, own = path.read_text(), f"{number:06d}"
    line = next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(own))
    other = f"{1 + number % 18:06d}"
    path.write_text(text.replace(f"{own}.jpg", changed.format(n=own, other=other)))
    line += changed == "{other}.jpg" and number < 18  # where it comes once more
    where = rf"line {line}: expected NAME|line {line}: \d+\.jpg once more"
    missing = r"lacks 1 of|says nothing of 1 "
    with pytest.raises(UserError, match=missing if changed[0] == "0" else where):
        listing(root, "#Smiling")


@pytest.mark.parametrize(
    ("name", "row"),
    [("list_eval_partition.txt", "000004.jpg -1"), ("list_attr_celeba.txt", "000004.jpg 2 1 1 1")],
)
def test_value_that_only_the_other_table_has_is_refused(
    tmp_path: Path, name: str, row: str
) -> None:
    root = layouts.celeba(tmp_path / "data")
    lines = (root / name).read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("000004"))
    (root / name).write_text("\n".join([*lines[:number], row, *lines[number + 1 :]]))
    with pytest.raises(UserError, match=rf"line {number + 1}: expected NAME"):
        listing(root, "#Smiling")


def test_empty_lines_are_none(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    text = root / "list_eval_partition.txt"
    text.write_text("\n" + partition(9) + "\n \n" + partition()[len(partition(9)) :] + "\n")
    assert listing(root).train.images == 10


def test_pictures_for_validation_need_not_be_there(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    for number in range(18):
        if layouts.part_of(number) == 1:
            (root / f"img_align_celeba/{number + 1:06d}.jpg").unlink()
    assert listing(root).train.images == 10


def test_header_with_more_names_than_values(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    text = root / "list_attr_celeba.txt"
    text.write_text(text.read_text().replace("Male", "Male Bald"))
    with pytest.raises(UserError, match=r"line 3: expected NAME and numbers \(5\)"):
        listing(root, "#Young")


def test_table_beyond_all_size_is_not_read(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "data")
    os.truncate(root / "list_eval_partition.txt", 2**40)
    with pytest.raises(UserError, match=r"list_eval_partition\.txt has 1099511627776 bytes"):
        listing(root)
