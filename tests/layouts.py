"""Small but genuine layouts of the published data sets, as their users have them on disk."""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ATTRIBUTES = ("5_o_Clock_Shadow", "Male", "Smiling", "Young")
WNIDS = ("n01440764", "n01443537", "n02084071")


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    """Return a smooth picture of ``size`` (width, height) that only its number makes."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(number: int, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    picture(number, size).save(file, kind, quality=90)
    return file.getvalue()


# --- CelebA ----------------------------------------------------------------------------------


def part_of(number: int) -> int:
    """The partition of a CelebA picture: five for training, two each for the others, repeated."""
    return (0, 0, 1, 2, 0, 2, 0, 1, 0)[number % 9]


def smiles(number: int) -> bool:
    return number % 3 == 0


def celeba(root: Path, count: int = 18, layout: str = "torchvision") -> Path:
    """Write CelebA as ``torchvision``, ``authors``, ``kaggle`` or ``seed`` (no text files)."""
    pictures, partition, attributes = {
        "torchvision": ("img_align_celeba", "", ""),
        "authors": ("Img/img_align_celeba", "Eval", "Anno"),
        "kaggle": ("img_align_celeba/img_align_celeba", "", ""),
        "seed": ("faces", "", ""),
    }[layout]
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    (root / pictures).mkdir(parents=True)
    for number, name in enumerate(names):
        (root / pictures / name).write_bytes(encoded(number, (178, 218)))
    if layout == "seed":
        return root
    comma = layout == "kaggle"
    parts = [[name, str(part_of(number))] for number, name in enumerate(names)]
    marks = [[name, "-1", "1", "1" if smiles(n) else "-1", "-1"] for n, name in enumerate(names)]
    for folder in (partition, attributes):
        (root / folder).mkdir(exist_ok=True)
    if comma:
        _csv(root / partition / "list_eval_partition.csv", [["image_id", "partition"], *parts])
        _csv(root / attributes / "list_attr_celeba.csv", [["image_id", *ATTRIBUTES], *marks])
        return root
    text = "".join(f"{name} {part}\n" for name, part in parts)
    (root / partition / "list_eval_partition.txt").write_text(text)
    head = f"{count}\n{' '.join(ATTRIBUTES)} \n"
    rows = "".join(f"{name} {' '.join(f'{mark:>2}' for mark in row)}\n" for name, *row in marks)
    (root / attributes / "list_attr_celeba.txt").write_text(head + rows)
    return root


def _csv(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join(",".join(row) + "\r\n" for row in rows))


# --- LSUN ------------------------------------------------------------------------------------


def lsun_key(number: int) -> str:
    return f"{number * 7919:040x}"


def lsun(root: Path, **categories: int) -> Path:
    """Write an LMDB directory of WebP and JPEG pictures, 64 x 48, for each category."""
    for name, count in categories.items():
        directory = root / f"{name}_lmdb"
        directory.mkdir(parents=True)
        with lmdb.open(str(directory), map_size=2**24) as database, database.begin(write=True) as t:
            for number in range(count):
                kind = "WEBP" if number % 2 else "JPEG"
                t.put(lsun_key(number).encode(), encoded(number, (64, 48), kind))
    return root


# --- CIFAR -----------------------------------------------------------------------------------


_PurePickler: Any = vars(pickle)["_Pickler"]
"""The pickler in Python, whose handling of each type can be replaced."""


class _Python2Pickler(_PurePickler):
    """Writes texts as Python 2 wrote its ``str``: bytes without an encoding."""

    dispatch: ClassVar[dict[type, Any]] = dict(_PurePickler.dispatch)

    def _save_str(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _save_str


def python2_pickle(value: Any) -> bytes:
    """Return what Python 2 and NumPy 1 would have pickled."""
    file = io.BytesIO()
    _Python2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_batch(seed: int, count: int, classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 3, 4, 4), np.uint8)
    images = coarse.repeat(8, 2).repeat(8, 3).reshape(count, 3072)
    return images, [int(label) for label in random.integers(0, classes, count)]


def cifar10(root: Path, count: int = 20) -> Path:
    """Write five batches and the test batch, each of ``count`` images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        images, labels = cifar_batch(seed, count, 10)
        content = {"batch_label": name, "labels": labels, "data": images, "filenames": ["x.png"]}
        (folder / name).write_bytes(python2_pickle(content))
    meta = {"num_cases_per_batch": count, "label_names": [f"class {n}" for n in range(10)]}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return root


def cifar100(root: Path, count: int = 40) -> Path:
    """Write the training and the test batch, each of ``count`` images."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        images, labels = cifar_batch(seed, count, 100)
        coarse = [label // 5 for label in labels]
        content = {"fine_labels": labels, "coarse_labels": coarse, "data": images}
        (folder / name).write_bytes(python2_pickle(content))
    meta = {"fine_label_names": [f"fine {n}" for n in range(100)], "coarse_label_names": ["x"] * 20}
    (folder / "meta").write_bytes(python2_pickle(meta))
    return root


# --- ImageNet --------------------------------------------------------------------------------


def imagenet(root: Path, count: int = 6, *, train: str = "train/", val: str = "sorted") -> Path:
    """Write ``count`` training images a class below ``train``; val is sorted, flat or none."""
    for label, wnid in enumerate(WNIDS):
        folder = root / f"{train}{wnid}"
        folder.mkdir(parents=True)
        for number in range(count):
            content = encoded(100 * label + number, (50, 40))
            (folder / f"{wnid}_{number}.JPEG").write_bytes(content)
    for number in range(6 if val != "none" else 0):
        folder = root / "val" / (WNIDS[number % 3] if val == "sorted" else "")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        path.write_bytes(encoded(1000 + number, (50, 40)))
    return root


def folder(root: Path, count: int = 20) -> Path:
    """Write pictures in two class folders."""
    for number in range(count):
        path = root / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (40, 50)).save(path)
    return root
