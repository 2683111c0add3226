"""Many images of a finished run as files for other programs: as they are scored, and resumable.

Images are written some at a time, each part in one step; what is there already is not made again.
"""

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sagan_bench.core import system
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_file, atomic_write
from sagan_bench.core.progress import OnProgress
from sagan_bench.core.stored import json_object, sealed
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.session.sampling import TrainedGenerator
from sagan_bench.training.generation import balanced, sampler

FACTS, LABELS = "samples.json", "labels.csv"
PART_IMAGES = 1_000
"""Of a part, or as many more as make it whole batches."""
MOST_IMAGES = 100_000_000
"""In a folder: their names have eight digits."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Asked:
    """Which images, beside the generator.

    Attributes:
        n: how many, at least 1.
        seed: of the noise; a sampling seed of the run's scores gives the images that were scored.
        classes: numbers of those that take turns image by image; all of them if empty.
        truncation: of the noise; None for none.
        scale: side of the square that a pixel becomes.
    """

    n: int
    seed: int = 0
    classes: tuple[int, ...] = ()
    truncation: float | None = None
    scale: int = 1


class Form(ABC):
    """How images are kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def most_bytes(cls, n: int, side: int) -> int | None:
        """Return what n images of that side take while they are made; None where none can say."""
        return None

    @abstractmethod
    def has(self, start: int, stop: int) -> bool:
        """Return whether images start..stop are there."""

    @abstractmethod
    def write(self, start: int, images: Pixels, labels: Sequence[int] | None) -> None:
        """Write a part: images (k, S, S, 3) from number ``start`` on, and their classes if any."""

    def finish(self, parts: Sequence[tuple[int, int]]) -> None:
        """Make of all parts what is left behind: by default the parts themselves."""
        return


class Png(Form):
    """A file an image: ``00000000.png``."""

    def has(self, start: int, stop: int) -> bool:
        """Return whether the last one is there, which is written last."""
        return self._file(stop - 1).exists()

    def write(self, start: int, images: Pixels, labels: Sequence[int] | None) -> None:
        """Write one after another: the last in one step, once the others are there."""
        *files, last = (self._file(start + index) for index in range(len(images)))
        for file, image in zip(files, images, strict=False):
            file.write_bytes(_png(image))
        atomic_write(last, _png(images[-1]))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:08d}.png"


class Tar(Form):
    """Shards as WebDataset reads them: ``00000000.png``, and ``00000000.cls`` with its class."""

    def has(self, start: int, stop: int) -> bool:
        """Return whether the shard is there."""
        return self._file(start, stop).exists()

    def write(self, start: int, images: Pixels, labels: Sequence[int] | None) -> None:
        """Write one shard."""
        with (
            atomic_file(self._file(start, start + len(images))) as file,
            tarfile.open(fileobj=file, mode="w") as archive,
        ):
            for index, image in enumerate(images):
                name = f"{start + index:08d}"
                _add(archive, f"{name}.png", _png(image))
                if labels is not None:
                    _add(archive, f"{name}.cls", str(labels[index]).encode())

    def _file(self, start: int, stop: int) -> Path:
        return self.folder / f"images-{start:08d}-{stop - 1:08d}.tar"


class Npz(Form):
    """``images.npz``: ``arr_0`` (N, S, S, 3) uint8, as many programs read it; ``arr_1`` classes."""

    @classmethod
    def most_bytes(cls, n: int, side: int) -> int | None:
        """Return it: the parts, and the whole that is made of them."""
        return 2 * n * 3 * side**2

    def has(self, start: int, stop: int) -> bool:
        """Return whether the part is there, or all of it is."""
        return self.whole.exists() or self._part(start).exists()

    def write(self, start: int, images: Pixels, labels: Sequence[int] | None) -> None:
        """Write a part, which stays until all are there."""
        arrays: dict[str, Any] = {"arr_0": images}
        if labels is not None:
            arrays["arr_1"] = np.asarray(labels, np.int64)
        with atomic_file(self._part(start)) as file:
            np.savez(file, **arrays)

    def finish(self, parts: Sequence[tuple[int, int]]) -> None:
        """Put the parts together."""
        if not self.whole.exists():
            loaded = [np.load(self._part(start)) for start, _ in parts]
            arrays: dict[str, Any] = {
                name: np.concatenate([each[name] for each in loaded]) for name in loaded[0]
            }
            with atomic_file(self.whole) as file:
                np.savez(file, **arrays)
        for start, _ in parts:
            self._part(start).unlink(missing_ok=True)

    @property
    def whole(self) -> Path:
        """The file of all images."""
        return self.folder / "images.npz"

    def _part(self, start: int) -> Path:
        return self.folder / f"part-{start:08d}.npz"


FORMS: dict[str, type[Form]] = {"png": Png, "npz": Npz, "tar": Tar}


def leave(
    drawn: TrainedGenerator,
    asked: Asked,
    folder: Path,
    form: str,
    about: dict[str, Any],
    progress: OnProgress = lambda done, total: None,
) -> int:
    """Write images to a folder, and return how many were made now; the rest was there.

    Image i depends on seed and i alone; the batches are those of the run's scores, so that the
    images of a sampling seed are those that were scored, to the bit.

    Args:
        drawn: the generator.
        asked: which images.
        folder: empty, new, or what the same call has begun.
        form: one of `FORMS`.
        about: what else decides the images, as JSON: kept, and held to.
        progress: called with the images that are there, and how many there will be; may raise.

    Raises:
        UserError: the folder holds something else, or there are too many for it or its disk.
        NonFiniteImages: G made NaN or infinity.
    """
    names = [drawn.names[label] if drawn.names else str(label) for label in _order(drawn, asked)]
    facts = {"form": form, **vars(asked), **about, "names": names}
    if not (folder / FACTS).exists():
        _refuse_too_many(folder, form, asked, drawn.config.data.image_size)
    _begin(folder, json.loads(json.dumps(facts)))
    kept, order = FORMS[form](folder), _order(drawn, asked)
    batch = drawn.config.training.batch_size
    size = batch * -(-PART_IMAGES // batch)
    parts = [(at, min(at + size, asked.n)) for at in range(0, asked.n, size)]
    sample, new = _sampler(drawn, order, asked), 0
    if order:
        _write_labels(folder, order, names, asked.n)
    device = next(drawn.generator.parameters()).device
    for start, stop in parts:
        if not kept.has(start, stop):
            done = _counting(start, asked.n, progress)
            with system.memory_for("making images", device):
                images = sample_images(_from(sample, start), stop - start, asked.seed, batch, done)
            labels = [order[i % len(order)] for i in range(start, stop)] if order else None
            kept.write(start, _scaled(images, asked.scale), labels)
            new += stop - start
        progress(stop, asked.n)
    with system.memory_for("putting images together", torch.device("cpu")):
        kept.finish(parts)
    return new


def _counting(start: int, n: int, progress: OnProgress) -> Callable[[int], None]:
    """Return what is told of each batch of a part, and tells how many images there are."""
    made = [start]

    def done(images: int) -> None:
        made[0] += images
        progress(made[0], n)

    return done


def _order(drawn: TrainedGenerator, asked: Asked) -> list[int]:
    """Return the classes that take turns, as in scores; empty without classes."""
    everything = balanced(drawn.config.model.classes)
    return list(asked.classes) or ([] if everything is None else everything.tolist())


def _sampler(
    drawn: TrainedGenerator, order: Sequence[int], asked: Asked
) -> Callable[[int, int, int], torch.Tensor]:
    return sampler(
        drawn.generator,
        drawn.config.model.z_dim,
        labels=torch.tensor(order) if order else None,
        truncation=asked.truncation,
    )


def _from(
    sample: Callable[[int, int, int], torch.Tensor], first: int
) -> Callable[[int, int, int], torch.Tensor]:
    return lambda seed, start, stop: sample(seed, first + start, first + stop)


def _refuse_too_many(folder: Path, form: str, asked: Asked, side: int) -> None:
    if asked.n > MOST_IMAGES:
        raise UserError(f"--n {asked.n:,}: at most {MOST_IMAGES:,} in a folder")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    needed, free = FORMS[form].most_bytes(asked.n, side * asked.scale), disk_usage(there).free
    if needed is not None and needed > free:
        raise UserError(
            f"--n {asked.n:,}: needs {needed / 2**30:,.1f} GiB, and {there} has "
            f"{free / 2**30:,.1f} GiB free; make room, or fewer images"
        )


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Claim a folder; refuse one that holds anything else."""
    file = folder / FACTS
    if file.exists():
        known = json_object(file)
        if other := sorted(key for key in facts if known.get(key) != facts[key]):
            key = other[0]
            raise UserError(
                f"other images are there: {key} {known.get(key)!r}, not {facts[key]!r}; {folder}; "
                "give another --out"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out {folder}: it is not empty, and no images were begun there")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(file, sealed(facts))


def _write_labels(folder: Path, order: Sequence[int], names: Sequence[str], n: int) -> None:
    rows: Iterator[str] = (
        f"{index:08d},{order[index % len(order)]},{json.dumps(names[index % len(order)])}\n"
        for index in range(n)
    )
    atomic_write(folder / LABELS, ("image,class,name\n" + "".join(rows)).encode())


def _scaled(images: torch.Tensor, scale: int) -> Pixels:
    """Return images (k, 3, S, S) as (k, scale S, scale S, 3)."""
    wide = images.permute(0, 2, 3, 1)
    if scale > 1:
        wide = wide.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return wide.contiguous().numpy()


def _png(image: Pixels) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    return written.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
