import os
import pickle
import pickletools
from pathlib import Path

import layouts
import numpy as np
import pytest

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import cifar, open_source

BATCHES = "cifar-10-batches-py"


def spec(root: Path, kind: str = "cifar10", size: int = 32, **wishes: object) -> DataSpec:
    return DataSpec(f"{kind}:{root}", size, **wishes)  # type: ignore[arg-type]


def test_the_layouts_are_what_python_2_wrote(tmp_path: Path) -> None:
    content = (layouts.cifar10(tmp_path) / BATCHES / "data_batch_1").read_bytes()
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert {"SHORT_BINSTRING", "BINSTRING", "GLOBAL"} <= opcodes
    assert not opcodes & {"BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert set(pickle.loads(content, encoding="bytes")) >= {b"data", b"labels"}


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_at_32_px_is_the_very_pixels(tmp_path: Path, inside: bool) -> None:
    root = layouts.cifar10(tmp_path / "data")
    data = prepare(spec(root / BATCHES if inside else root), tmp_path / "cache", workers=2)
    images, labels = zip(*(layouts.cifar_batch(seed, 20, 10) for seed in range(6)), strict=True)
    assert np.array_equal(data.train.images.reshape(100, -1), np.concatenate(images[:5]))
    assert data.train.labels.tolist() == [label for batch in labels[:5] for label in batch]
    assert data.test is not None
    assert np.array_equal(data.test.images.reshape(20, -1), images[5])
    assert data.test.labels.tolist() == labels[5]
    assert data.manifest.classes == tuple(f"class {number}" for number in range(10))
    assert data.manifest.enlarged == 0


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    data = prepare(spec(layouts.cifar100(tmp_path / "data"), "cifar100"), tmp_path / "cache")
    images, labels = layouts.cifar_batch(0, 40, 100)
    assert np.array_equal(data.train.images.reshape(40, -1), images)
    assert data.train.labels.tolist() == labels
    assert (len(data.manifest.classes), data.manifest.classes[7]) == (100, "fine 7")


def test_larger_sizes_are_enlarged_and_counted(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    data = prepare(spec(root, size=64), tmp_path / "cache")
    assert data.train.images.shape == (100, 3, 64, 64)
    assert data.manifest.enlarged == 120


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_IMAGES_A_TASK", 8)
    root = layouts.cifar10(tmp_path / "data")
    part = prepare(spec(root, train_images=47, test_images=3), tmp_path / "cache")
    whole = prepare(spec(root), tmp_path / "cache")
    assert np.array_equal(part.train.images, whole.train.images[:47])
    assert (len(part.train), len(part.test or ())) == (47, 3)
    assert prepare(spec(root, test_images=0), tmp_path / "cache").test is None
    with pytest.raises(UserError, match="101 were asked for"):
        prepare(spec(root, train_images=101), tmp_path / "cache")


def test_batches_of_a_newer_python_read_too(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, labels = layouts.cifar_batch(9, 20, 10)
    path = root / BATCHES / "data_batch_2"
    path.write_bytes(pickle.dumps({b"data": images, b"labels": labels}, 4))
    data = prepare(spec(root), tmp_path / "cache")
    assert np.array_equal(data.train.images[20:40].reshape(20, -1), images)


def test_key_follows_the_batches(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    before = open_source(spec(root)).key
    os.utime(root / BATCHES / "data_batch_3", ns=(1, 1))
    assert open_source(spec(root)).key != before


# --- refusals ----------------------------------------------------------------------------------


def test_missing_batches_are_named(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    for name in ("data_batch_3", "batches.meta"):
        (root / BATCHES / name).unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_3, batches\.meta; expected"):
        open_source(spec(root))
    with pytest.raises(UserError, match=r"lacks train, test, meta; expected cifar-100-python/"):
        open_source(spec(root, "cifar100"))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Evil()), pickle.dumps({b"data": Evil()}), b"", b"no pickle", pickle.dumps([1])],
)
def test_what_is_no_batch_is_refused_and_runs_nothing(tmp_path: Path, content: bytes) -> None:
    root = layouts.cifar10(tmp_path / "data")
    for name in ("data_batch_1", "batches.meta"):
        path = root / BATCHES / name
        kept = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name} (cannot be read|holds no|names no)"):
            prepare(spec(root), tmp_path / "cache")
        path.write_bytes(kept)
    assert not Path("evil").exists()


def test_truncated_batch(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    path = root / BATCHES / "test_batch"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="test_batch cannot be read"):
        prepare(spec(root), tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [10] * 20}, "labels beyond its 10 classes"),
        ({"labels": [-1] * 20}, "labels beyond its 10 classes"),
        ({"labels": [1] * 19}, "no batch of images with labels"),
        ({"data": np.zeros((20, 3071), np.uint8)}, "no batch of images"),
        ({"data": np.zeros((20, 3072), np.float32)}, "no batch of images"),
    ],
)
def test_odd_content(tmp_path: Path, change: dict[str, object], said: str) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, labels = layouts.cifar_batch(0, 20, 10)
    content = {"data": images, "labels": labels} | change
    (root / BATCHES / "data_batch_4").write_bytes(layouts.python2_pickle(content))
    with pytest.raises(UserError, match=said):
        prepare(spec(root), tmp_path / "cache")


@pytest.mark.parametrize(
    ("written", "shown"),
    [("d", "d"), (b"d\xc3\xa9", "d\u00e9"), (b"d\xe9", "d\\xe9"), ("d\u00e9", "d\u00e9")],
)
def test_names_of_classes_are_bytes_or_text(
    tmp_path: Path, written: str | bytes, shown: str
) -> None:
    root = layouts.cifar10(tmp_path / "data")
    content = {b"label_names": [written] * 10}
    (root / BATCHES / "batches.meta").write_bytes(pickle.dumps(content))
    assert open_source(spec(root)).listing().classes == (shown,) * 10


@pytest.mark.parametrize("names", [[], [1] * 10, [None], "abcdefghij", {"a": 1}])
def test_names_that_are_no_names(tmp_path: Path, names: object) -> None:
    root = layouts.cifar10(tmp_path / "data")
    (root / BATCHES / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    with pytest.raises(UserError, match=r"batches\.meta names no classes"):
        open_source(spec(root)).listing()


def test_batches_with_text_as_keys(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, labels = layouts.cifar_batch(9, 20, 10)
    (root / BATCHES / "data_batch_2").write_bytes(pickle.dumps({"data": images, "labels": labels}))
    (root / BATCHES / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = prepare(spec(root), tmp_path / "cache")
    assert np.array_equal(data.train.images[20:40].reshape(20, -1), images)


@pytest.mark.parametrize("labels", [None, "x", ["a"] * 20, [[1], [1, 2]], 5, [2**70] * 20, [{}]])
def test_labels_that_are_none(tmp_path: Path, labels: object) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, _ = layouts.cifar_batch(0, 20, 10)
    content = pickle.dumps({b"data": images, b"labels": labels})
    (root / BATCHES / "data_batch_4").write_bytes(content)
    with pytest.raises(UserError, match="data_batch_4 holds"):
        prepare(spec(root), tmp_path / "cache")


def test_batch_beyond_all_size_is_not_read(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    os.truncate(root / BATCHES / "data_batch_4", 2**40)
    with pytest.raises(UserError, match="data_batch_4 cannot be read: it is larger than any batch"):
        prepare(spec(root), tmp_path / "cache")
