import os
import pickle
import pickletools
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Literal

import layouts
import numpy as np
import pytest

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import _cifar, open_source

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
    monkeypatch.setattr(_cifar, "_IMAGES_A_TASK", 8)
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


# --- damaged and hostile pickles -----------------------------------------------------------------


def batch_2(root: Path) -> Path:
    return root / BATCHES / "data_batch_2"


def refused(root: Path, content: bytes, said: str) -> None:
    """Hold that a batch of this content is refused, and that it costs no memory to speak of."""
    batch_2(root).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=said):
            open_source(spec(root)).listing()
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def python3_for_python2(images: object, labels: object) -> bytes:
    content = pickle.dumps({b"data": images, b"labels": labels}, 2)
    assert b"c_codecs\nencode\n" in content
    return content


def test_batches_that_python_3_wrote_for_python_2_read_too(tmp_path: Path) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, labels = layouts.cifar_batch(9, 20, 10)
    batch_2(root).write_bytes(python3_for_python2(images, labels))
    data = prepare(spec(root), tmp_path / "cache")
    assert np.array_equal(data.train.images[20:40].reshape(20, -1), images)
    assert data.train.labels[20:40].tolist() == labels


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["list", "<i8", ">i4", "u1"])
def test_batches_of_every_protocol_order_and_kind_of_labels(
    tmp_path: Path, protocol: int, order: Literal["C", "F"], kind: str
) -> None:
    root = layouts.cifar10(tmp_path / "data")
    images, labels = layouts.cifar_batch(9, 20, 10)
    content = {
        b"data": np.array(images, order=order),
        b"labels": labels if kind == "list" else np.array(labels, kind),
    }
    batch_2(root).write_bytes(pickle.dumps(content, protocol))
    tasks = open_source(spec(root)).listing().train.tasks
    images_2, labels_2 = tasks[1]()[:2]
    assert np.array_equal(images_2.reshape(20, -1), images)
    assert labels_2.tolist() == labels


@pytest.mark.parametrize("made_by", ["python 2", "python 3 for python 2", "python 3"])
def test_no_flipped_bit_costs_memory_or_an_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_by: str
) -> None:
    images, labels = layouts.cifar_batch(9, 4, 10)
    content = {
        "python 2": layouts.python2_pickle({"labels": labels, "data": images}),
        "python 3 for python 2": python3_for_python2(images, labels),
        "python 3": pickle.dumps({b"data": images, b"labels": labels}, 4),
    }[made_by]
    path = tmp_path / "batch"
    path.touch()
    now = [content]
    monkeypatch.setattr(Path, "read_bytes", lambda _: now[0])
    # The ends, where all but the pixels stands, and a sample of the rest.
    ends = {*range(250), *range(len(content) - 250, len(content))}
    tracemalloc.start()
    try:
        for place in sorted(ends | {*range(0, len(content), 199)}):
            for bit in range(8):
                changed = bytearray(content)
                changed[place] ^= 1 << bit
                now[0] = bytes(changed)
                with suppress(UserError):
                    _cifar._batch.__wrapped__(str(path), b"labels", 10)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def number(opcode: bytes, value: int, width: int = 4) -> bytes:
    return opcode + value.to_bytes(width, "little")


@pytest.mark.parametrize(
    "content",
    [
        b"}" + number(pickle.LONG_BINPUT, 2**31) + b".",
        b"}" + number(pickle.LONG_BINPUT, 4) + b".",
        b"}" + number(pickle.BINSTRING, 2**31 - 1) + b"ab.",
        b"}" + number(pickle.BINBYTES8, 2**62, 8) + b"ab.",
        b"}" + number(pickle.BYTEARRAY8, 2**35, 8) + b"ab.",
        b"}" + number(pickle.FRAME, 2**40, 8) + b".",
        b"}p2000000000\n.",
        b"cnumpy",
        b"}L9\n.",
        b"",
        b"}",
    ],
)
def test_numbers_that_cannot_be_the_files_own_are_refused(tmp_path: Path, content: bytes) -> None:
    root = layouts.cifar10(tmp_path / "data")
    refused(root, b"\x80\x02" + content, "data_batch_2 cannot be read: it (counts|holds|ends)")


def array(
    shape: bytes = b"K\x00\x85", code: bytes = b"u1", kind: bytes = b"", end: bytes = b""
) -> bytes:
    """Return the pickle of ``{b"data": array}`` as Python 2 writes it, with parts of it changed."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + shape + b"U\x01btR"
    described = b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR" + kind
    state = b"(K\x01K\x01\x85" + described + b"\x89U\x01at" + b"b"
    return b"\x80\x02}U\x04data" + made + (end or state) + b"s."


FLAGS = b"(K\x03U\x01|NNN" + number(b"J", 2**32 - 1) * 2 + b"K%ctb"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (array(shape=number(b"J", 2**30) + b"\x85"), "holds odd labels"),
        (array(code=b"O8"), "cannot be read: it holds an array of 'O8'"),
        (array(code=b"S9"), "cannot be read: it holds an array of 'S9'"),
        (array(kind=b"(K\x03U\x01|K\x01NNtb"), "cannot be read: it holds an array of parts"),
        (array(kind=FLAGS % 63), "holds odd labels"),
        (array(end=b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02u1tR\x89U\x01atb"), "not as many numbers"),
        (b"\x80\x02}U\x04datacnumpy\ndtype\n}U\x01aK\x01sbs.", "cannot be read: it changes what"),
        (
            b"\x80\x02c_codecs\nencode\n(X\x01\0\0\0aX\x04\0\0\0zlibtR.",
            "cannot be read: it holds texts",
        ),
        (b"\x80\x02c_codecs\ndecode\n.", r"cannot be read: it asks for _codecs\.decode"),
    ],
)
def test_arrays_are_made_of_what_is_there(tmp_path: Path, content: bytes, said: str) -> None:
    refused(
        layouts.cifar10(tmp_path / "data"), content, f"data_batch_2 .*{said}|data_batch_2 {said}"
    )


def test_texts_are_encoded_once_only(tmp_path: Path) -> None:
    long = number(pickle.BINUNICODE, 2**20) + b"a" * 2**20
    kept = b"c_codecs\nencode\nq\x01" + long + b"q\x02X\x06\0\0\0latin1q\x03"
    bomb = b"\x80\x02" + kept + b"(" + b"h\x01h\x02h\x03\x86R" * 1000 + b"l."
    refused(
        layouts.cifar10(tmp_path / "data"),
        bomb.replace(b"(h", b"](h", 1).replace(b"l.", b"e."),
        "holds texts",
    )


def test_lists_in_lists_are_not_unfolded(tmp_path: Path) -> None:
    rows: object = [1]
    for _ in range(5):
        rows = [rows] * 40
    content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": rows})
    assert len(content) < 5000
    refused(layouts.cifar10(tmp_path / "data"), content, "holds labels that are no numbers")
