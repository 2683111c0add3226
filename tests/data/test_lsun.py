import io
import os
import pickle
from pathlib import Path

import layouts
import lmdb
import numpy as np
import pytest
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources import lsun, open_source


def listing(root: Path, category: str = "church_outdoor_train", **wishes: object) -> Listing:
    return open_source(DataSpec(f"lsun:{root}#{category}", 16, **wishes)).listing()  # type: ignore[arg-type]


def keys(source: Listing, split: str) -> list[str]:
    return [key for task in source.parts[split].tasks for key in task.args[1]]  # type: ignore[attr-defined]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layouts.lsun(tmp_path / "data", church_outdoor_train=30, church_outdoor_val=5, cat=12)


def test_its_own_splits(root: Path) -> None:
    source = listing(root)
    assert sorted(keys(source, "train")) == [layouts.lsun_key(number) for number in range(30)]
    assert sorted(keys(source, "test")) == [layouts.lsun_key(number) for number in range(5)]
    assert source.classes == ("church_outdoor",)
    assert (
        source.split_rule
        == "church_outdoor_train_lmdb for training, church_outdoor_val_lmdb for testing"
    )


def test_category_without_splits_holds_a_tenth_out(root: Path) -> None:
    source = listing(root, "cat")
    train, test = keys(source, "train"), keys(source, "test")
    assert sorted(train + test) == [layouts.lsun_key(number) for number in range(12)]
    assert test
    assert "10% held out" in source.split_rule


def test_object_categories_have_no_suffix(tmp_path: Path) -> None:
    (layouts.lsun(tmp_path, dog=4) / "dog_lmdb").rename(tmp_path / "dog")
    assert listing(tmp_path, "dog").classes == ("dog",)


@pytest.mark.parametrize("fit", ["squash", "centre-crop"])
def test_pixels(tmp_path: Path, root: Path, fit: str) -> None:
    spec = DataSpec(f"lsun:{root}#church_outdoor_train", 16, fit=fit)  # type: ignore[arg-type]
    data = prepare(spec, tmp_path / "cache", workers=2)
    for row, key in enumerate(keys(listing(root), "train")):
        number = int(key, 16) // 7919
        kind = "WEBP" if number % 2 else "JPEG"
        image = Image.open(io.BytesIO(layouts.encoded(number, (64, 48), kind))).convert("RGB")
        if fit == "centre-crop":
            image = image.crop((8, 0, 56, 48))
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(data.train.images[row], expected.transpose(2, 0, 1))
    assert (data.manifest.fit, data.manifest.selection) == (fit, "church_outdoor_train")
    assert data.test is not None
    assert not data.test.labels.any()


def test_workers_change_nothing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsun, "_PICTURES_A_TASK", 4)
    spec = DataSpec(f"lsun:{root}#church_outdoor_train", 16)
    alone, together = (prepare(spec, tmp_path / str(n), workers=n).manifest for n in (1, 2))
    assert alone == together


def test_limits_and_tasks(root: Path) -> None:
    part = listing(root, train_images=7, test_images=0)
    assert keys(part, "train") == keys(listing(root), "train")[:7]
    assert part.test is None
    assert pickle.loads(pickle.dumps(part.train.tasks[0]))().images.shape == (7, 3, 16, 16)
    with pytest.raises(UserError, match="31 were asked for"):
        listing(root, train_images=31)


def test_key_follows_the_database_and_the_category(root: Path) -> None:
    def key(category: str) -> str:
        return open_source(DataSpec(f"lsun:{root}#{category}", 16)).key

    found = [key("church_outdoor_train"), key("cat"), key("church_outdoor_val")]
    os.utime(root / "church_outdoor_val_lmdb/data.mdb", ns=(1, 1))
    found.append(key("church_outdoor_train"))
    assert len(set(found)) == 4


def test_nothing_is_written_beside_the_database(tmp_path: Path, root: Path) -> None:
    before = sorted(root.rglob("*"))
    prepare(DataSpec(f"lsun:{root}#cat", 16), tmp_path / "cache")
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("category", ["#church", ""])
def test_other_category_shows_those_there_are(root: Path, category: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(DataSpec(f"lsun:{root}{category}", 16))
    for name in ("cat", "church_outdoor_train", "church_outdoor_val"):
        assert f"lsun:{root}#{name}" in str(caught.value)


def test_folder_without_databases(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no LMDB directory such as church_outdoor_train"):
        listing(tmp_path)


def test_damaged_database(root: Path) -> None:
    (root / "cat_lmdb/data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"cat_lmdb is damaged: .*fetch it again"):
        listing(root, "cat")


def test_empty_database(root: Path) -> None:
    with lmdb.open(str(root / "none_lmdb")):
        pass
    with pytest.raises(UserError, match="none_lmdb holds no pictures"):
        listing(root, "none")


def test_bad_picture_is_refused_by_key(tmp_path: Path, root: Path) -> None:
    with lmdb.open(str(root / "cat_lmdb")) as database, database.begin(write=True) as transaction:
        transaction.put(b"f" * 40, b"no picture")
    spec = DataSpec(f"lsun:{root}#cat", 16)
    with pytest.raises(UserError, match=r"1 of 13 .*\n  f{40}: not a picture"):
        prepare(spec, tmp_path / "cache")
    assert prepare(spec, tmp_path / "cache", skip_bad=True).manifest.refused == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_database_that_lacks_its_end_is_refused_before_it_is_mapped(
    root: Path, share: float
) -> None:
    file = root / "cat_lmdb/data.mdb"
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(UserError, match=r"cat_lmdb is damaged: data\.mdb (has|is no LMDB)"):
        listing(root, "cat")


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html>" + b" " * 9000, b"PK\x03\x04" * 5000, bytes(9000), b"\xff\xfe<\0" * 5000],
)
def test_what_is_no_database(root: Path, content: bytes) -> None:
    (root / "cat_lmdb/data.mdb").write_bytes(content)
    with pytest.raises(UserError, match=r"cat_lmdb is damaged: data\.mdb is no LMDB file"):
        listing(root, "cat")


def test_pages_of_zeros_end_no_process_but_their_readers(tmp_path: Path, root: Path) -> None:
    file = root / "cat_lmdb/data.mdb"
    content = file.read_bytes()
    for page in range(2, len(content) // 4096):
        damaged = bytearray(content)
        damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cat_lmdb is damaged|cannot be read"):
            prepare(DataSpec(f"lsun:{root}#cat", 16), tmp_path / f"cache{page}", workers=1)
        if page == 4:
            break


def test_keys_of_any_bytes(tmp_path: Path) -> None:
    root = layouts.lsun(tmp_path / "data", own=3)
    with lmdb.open(str(root / "own_lmdb")) as database, database.begin(write=True) as transaction:
        for key in (b"\xff\xfe", "\u00e9".encode(), b"a b"):
            transaction.put(key, layouts.encoded(1, (16, 16)))
    data = prepare(DataSpec(f"lsun:{root}#own", 16), tmp_path / "cache")
    assert len(data.train) + len(data.test or ()) == 6
