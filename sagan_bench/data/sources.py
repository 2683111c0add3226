"""Names of data sets to images: what a source holds, and how each of its pictures becomes pixels.

A :class:`Source` is a listing, made without decoding anything: classes, splits, and for each split
the tasks that yield its images in order. The store runs the tasks and knows nothing of any source;
a new kind of source is a function ``DataSpec -> Source`` and a row in :data:`KINDS`.

This module is imported by decoding workers and therefore never imports torch.

How a picture becomes pixels, for every source of pictures: the first frame; turned as its EXIF tag
says; greyscale repeated, 16-bit greyscale divided by 257, CMYK as Pillow converts it, colour
profiles ignored; anything transparent laid on white; then centre crop, fit and resize
(:class:`Geometry`).
"""

import difflib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sagan_bench.data import shapes
from sagan_bench.errors import UserError

Fit = Literal["centre-crop", "squash"]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

RESIZE = "bicubic, antialiased (Pillow)"
"""How pictures are resized, for the manifest and the fingerprint."""
TWINS_SEED = 0
"""The one seed of the published ``twins``; runs differ in their own seed, never in their data."""
HELD_OUT = 0.1
"""Share of a folder without splits of its own that becomes the test split."""
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
)
"""File names that count as pictures, in any case."""

_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
    "GIF",
    "PPM",
)  # not EPS: its reader starts a program
_FILES_A_TASK = 64
_TWINS_PIXELS_A_TASK = 2**20


@dataclass(frozen=True)
class DataSpec:
    """Which images a run wants, and at what size.

    ``crop`` is a centre crop in pixels of the source, before resizing. ``fit`` says what becomes of
    a picture that is not square then: its largest centred square, or all of it, squashed.
    ``train_images`` and ``test_images`` keep only so many of each split (``test_images=0``: none).

    Raises:
        UserError: ``source`` is of no known kind.
    """

    source: str
    image_size: int
    crop: int | None = None
    fit: Fit = "centre-crop"
    train_images: int | None = None
    test_images: int | None = None

    def __post_init__(self) -> None:
        _check_source(self.source)

    @property
    def kind(self) -> str:
        """The part of ``source`` before the colon: a key of :data:`KINDS`."""
        return self.source.partition(":")[0]

    @property
    def path(self) -> Path:
        """The part of ``source`` after the colon, with ``~`` expanded."""
        return Path(self.source.partition(":")[2]).expanduser()


class Chunk(NamedTuple):
    """What one task yields: uint8 (n, 3, S, S) images, int64 (n,) labels, and what it refused.

    ``refused`` holds one ``name: reason`` for each picture that could not be read.
    """

    images: Pixels
    labels: Labels
    refused: tuple[str, ...] = ()


Task = Callable[[], Chunk]


class Part(NamedTuple):
    """One split of a source: its number of images and the picklable tasks that yield them."""

    images: int
    tasks: Sequence[Task]


@dataclass(frozen=True)
class Geometry:
    """From an RGB picture of any size to uint8 (3, size, size): centre crop, fit, resize."""

    size: int
    crop: int | None
    fit: Fit

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the pixels; ValueError where the picture is smaller than ``crop``."""
        width, height = image.size
        shorter = min(width, height)
        if self.crop is not None and self.crop > shorter:
            raise ValueError(f"{width} x {height} pixels are fewer than the crop of {self.crop}")
        if self.crop is not None or self.fit == "centre-crop":
            side = self.crop or shorter
            left, top = (width - side) // 2, (height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(image).transpose(2, 0, 1)


@dataclass(frozen=True)
class Source:
    """A listing of one data set as one :class:`DataSpec` wants it; nothing is decoded yet.

    ``key`` names the prepared store in the cache: it changes when the source or the wish does.
    ``definition`` holds all that determines the images where that is known without reading any.
    ``geometry`` is None where images are made at the wanted size. ``processes``: the tasks need
    processes to run side by side, threads are not enough.
    """

    kind: str
    image_size: int
    classes: tuple[str, ...]
    train: Part
    test: Part | None
    split_rule: str
    key: str
    geometry: Geometry | None
    definition: dict[str, int] | None
    processes: bool

    @property
    def parts(self) -> dict[str, Part]:
        """The splits there are, by name."""
        return {"train": self.train} | ({"test": self.test} if self.test else {})


def open_source(spec: DataSpec) -> Source:
    """List what ``spec`` names.

    Raises:
        UserError: There are no such images, or their layout can be read in two ways.
    """
    return KINDS[spec.kind].open(spec)


def digest16(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of ``value`` as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- twins -----------------------------------------------------------------------------------


def twins(spec: DataSpec) -> Source:
    """List the procedural data set; a smaller one is the beginning of the whole one."""
    if spec.crop is not None:
        raise UserError(f"twins is drawn at its size; it has nothing to crop to {spec.crop} px")
    train = _at_most(shapes.TRAIN_IMAGES, spec.train_images, "training", "twins")
    test = _at_most(shapes.TEST_IMAGES, spec.test_images, "test", "twins")
    definition = {
        "twins_version": shapes.TWINS_VERSION,
        "seed": TWINS_SEED,
        "image_size": spec.image_size,
        "train_images": train,
        "test_images": test,
    }
    first_test = shapes.TRAIN_IMAGES
    return Source(
        kind="twins",
        image_size=spec.image_size,
        classes=shapes.CLASSES,
        train=_twins_part(0, train, spec.image_size),
        test=_twins_part(first_test, first_test + test, spec.image_size) if test else None,
        split_rule=f"indices from 0 are for training, from {first_test} for testing",
        key=digest16(definition),
        geometry=None,
        definition=definition,
        processes=False,
    )


def _twins_part(start: int, stop: int, size: int) -> Part:
    step = max(1, _TWINS_PIXELS_A_TASK // size**2)
    spans = ((first, min(first + step, stop)) for first in range(start, stop, step))
    return Part(stop - start, [partial(_draw, *span, size) for span in spans])


def _draw(start: int, stop: int, size: int) -> Chunk:
    return Chunk(*shapes.draw(np.arange(start, stop), seed=TWINS_SEED, size=size))


# --- folder ----------------------------------------------------------------------------------


class _File(NamedTuple):
    name: str  # relative to the root, with "/"
    size: int
    mtime_ns: int


class _Splits(NamedTuple):
    """Names of the files of each split, and the folder (``train/``) that each lies in, if any."""

    train: list[str]
    test: list[str]
    train_folder: str
    test_folder: str
    rule: str


def folder(spec: DataSpec) -> Source:
    """List a folder of pictures, with or without a subfolder for each class.

    Classes are the first-level subfolders that hold pictures, at any depth; without subfolders
    there is one class, ``images``. ``train/`` with ``test/`` or ``val/`` are splits; else a picture
    is held out for testing where the hash of its name falls in the lowest tenth, so that adding
    pictures moves none. Names that start with a dot are skipped. The order is that of the hashes:
    the first n of a split are a fair sample of it.
    """
    root = spec.path
    files = _scan(root)
    splits = _split([file.name for file in files], root)
    train = _limited(splits.train, spec.train_images, "training", root)
    test = _limited(splits.test, spec.test_images, "test", root)
    classes = _classes(splits, root)
    geometry = Geometry(spec.image_size, spec.crop, spec.fit)
    return Source(
        kind="folder",
        image_size=spec.image_size,
        classes=tuple(map(_shown, classes)),
        train=_files_part(root, train, splits.train_folder, classes, geometry),
        test=_files_part(root, test, splits.test_folder, classes, geometry) if test else None,
        split_rule=splits.rule,
        key=_folder_key(root, files, spec),
        geometry=geometry,
        definition=None,
        processes=True,
    )


def _scan(root: Path) -> list[_File]:
    if not root.exists():
        raise UserError(f"there is no folder {root}; check the path after 'folder:'")
    if not root.is_dir():
        raise UserError(f"{root} is a file; 'folder:' takes the folder that holds the pictures")
    try:
        files = sorted(_walk(str(root), "", ()))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not files:
        kinds = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
        raise UserError(f"no pictures in {root} or below it; looked for {kinds}")
    return files


def _walk(path: str, prefix: str, above: tuple[str, ...]) -> Iterator[_File]:
    here = os.path.realpath(path)
    if here in above:  # a link that leads back up
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
            elif _is_picture(entry):
                # A broken link is listed too: reading it refuses it by name.
                facts = entry.stat(follow_symlinks=entry.is_file())
                yield _File(prefix + entry.name, facts.st_size, facts.st_mtime_ns)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    return suffix in EXTENSIONS and (entry.is_file() or entry.is_symlink())


def _split(names: list[str], root: Path) -> _Splits:
    heads = _heads(names)
    other = next((name for name in ("test", "val") if name in heads), None)
    if "train" not in heads or other is None:
        train, test = _hold_out(names)
        rule = f"{HELD_OUT:.0%} held out by the hash of the name" if test else "all for training"
        return _Splits(train, test, "", "", rule)
    train, test = _below(names, "train/"), _below(names, f"{other}/")
    unused = len(names) - len(train) - len(test)
    rule = f"train/ and {other}/ of the folder" + (
        f"; unused beside them: {unused}" if unused else ""
    )
    return _Splits(_ranked(train), _ranked(test), "train/", f"{other}/", rule)


def _below(names: Iterable[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def _heads(names: Iterable[str]) -> list[str]:
    """First-level folders of ``names``, sorted."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})


def _hold_out(names: list[str]) -> tuple[list[str], list[str]]:
    names = _ranked(names)
    wanted = max(1, sum(_rank(name) < HELD_OUT for name in names))
    held_out = min(wanted, len(names) - 1)
    return names[held_out:], names[:held_out]


def _ranked(names: list[str]) -> list[str]:
    return sorted(names, key=_rank)


def _rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def _limited(names: list[str], limit: int | None, split: str, root: Path) -> list[str]:
    return names[: _at_most(len(names), limit, split, str(root))]


def _at_most(available: int, wanted: int | None, split: str, where: str) -> int:
    if wanted is not None and wanted > available:
        raise UserError(f"{where} has {available} {split} images; {wanted} were asked for")
    if wanted == 0 and split == "training":
        raise UserError(f"{where}: 0 training images were asked for; ask for some")
    return available if wanted is None else wanted


def _classes(splits: _Splits, root: Path) -> tuple[str, ...]:
    if not splits.train_folder:
        return _class_names(splits.train + splits.test, root, "")
    classes = _class_names(splits.train, root, splits.train_folder)
    test_classes = _class_names(splits.test, root, splits.test_folder)
    if unknown := sorted(set(test_classes) - set(classes)):
        raise UserError(
            f"{root / splits.test_folder} holds {_some(unknown)}, which "
            f"{root / splits.train_folder} does not; give both the same class folders"
        )
    return classes


def _class_names(names: list[str], root: Path, prefix: str) -> tuple[str, ...]:
    inner = [name.removeprefix(prefix) for name in names]
    heads = _heads(inner)
    loose = sum("/" not in name for name in inner)
    where = root / prefix
    if loose and heads:
        raise UserError(
            f"{where} holds loose images ({loose}) beside folders of images ({_some(heads)}); "
            "move the loose ones into a class folder or away"
        )
    if len(heads) == 1:
        _refuse_level_too_many(inner, where)
    return tuple(heads) or ("images",)


def _refuse_level_too_many(names: list[str], where: Path) -> None:
    """Raise if following lone folders down from ``where`` leads to a choice of folders."""
    inside = where
    while len(heads := _heads(names)) == 1 and all("/" in name for name in names):
        inside /= heads[0]
        names = [name.partition("/")[2] for name in names]
    if all("/" in name for name in names):
        raise UserError(
            f"{where} is one folder level too high: it holds only {inside.relative_to(where)}/, "
            f"which holds {len(heads)} folders of images ({_some(heads)}), so that all images "
            f"would be of one class; did you mean {inside}?"
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(_shown(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ..."


def _shown(name: str) -> str:
    """``name`` with the bytes that are not UTF-8 written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _folder_key(root: Path, files: list[_File], spec: DataSpec) -> str:
    # The path is in the key, though in no fingerprint: unpacked archives can agree in names, sizes
    # and times and still hold other pictures.
    listing = hashlib.sha256(os.fsencode(root.resolve()))
    for file in files:
        listing.update(os.fsencode(f"\0{file.name}\0{file.size}\0{file.mtime_ns}"))
    made = (spec.image_size, spec.crop, spec.fit, RESIZE, spec.train_images, spec.test_images)
    return digest16(["folder", listing.hexdigest(), *made])


def _files_part(
    root: Path, names: list[str], prefix: str, classes: tuple[str, ...], geometry: Geometry
) -> Part:
    label = {name: position for position, name in enumerate(classes)}
    labels = [label.get(name.removeprefix(prefix).partition("/")[0], 0) for name in names]
    spans = (slice(start, start + _FILES_A_TASK) for start in range(0, len(names), _FILES_A_TASK))
    tasks = [partial(read_files, str(root), names[s], labels[s], geometry) for s in spans]
    return Part(len(names), tasks)


# --- decoding --------------------------------------------------------------------------------


def read_files(root: str, names: list[str], labels: list[int], geometry: Geometry) -> Chunk:
    """Decode pictures; those that cannot be read are left out and named with the reason."""
    images = np.empty((len(names), 3, geometry.size, geometry.size), np.uint8)
    kept: list[int] = []
    refused: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata: what matters is whether pixels come out
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for name, label in zip(names, labels, strict=True):
            try:
                images[len(kept)] = geometry(_open_rgb(os.path.join(root, name)))
            except Exception as error:  # noqa: BLE001 - damaged files make decoders raise anything
                refused.append(f"{_shown(name)}: {_reason(error)}")
            else:
                kept.append(label)
    return Chunk(images[: len(kept)], np.array(kept, np.int64), tuple(refused))


def _open_rgb(path: str) -> Image.Image:
    with Image.open(path, formats=_FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as 8-bit RGB by fixed rules, never by its own minimum and maximum.

    Raises:
        ValueError: The pixels are floating-point or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("integer pixels beyond 16 bits have no fixed range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    """Say why a picture was refused, without the path that Pillow puts into some messages."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def start_worker() -> None:
    """Set up a decoding process: Ctrl-C is its parent's to handle, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent killed by SIGKILL closes no queue: its workers would wait for tasks for ever.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


# --- names -----------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of source: how it is written after ``--data``, and what lists it."""

    usage: str
    open: Callable[[DataSpec], Source]


KINDS: dict[str, Kind] = {
    "twins": Kind("twins", twins),
    "folder": Kind("folder:PATH", folder),
}
"""Every kind of source by the name before the colon."""


def _check_source(source: str) -> None:
    kind, _, argument = source.partition(":")
    known = ", ".join(row.usage for row in KINDS.values())
    if kind not in KINDS:
        raise UserError(f"unknown data {source!r}; known: {known}{_suggestion(source)}")
    if (":" in KINDS[kind].usage) != bool(argument):
        raise UserError(f"data {source!r} is not complete or says too much; known: {known}")


def _suggestion(source: str) -> str:
    if Path(source).expanduser().is_dir():
        return f"; did you mean 'folder:{source}'?"
    close = difflib.get_close_matches(source.partition(":")[0].lower(), KINDS, n=1)
    return f"; did you mean {KINDS[close[0]].usage!r}?" if close else ""
