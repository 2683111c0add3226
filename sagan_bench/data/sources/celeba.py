"""CelebA by its text files, in the layouts that its users have on disk."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.listing import DataSpec, Listing, first_of, hold_out, ranked, some
from sagan_bench.data.sources._base import Archive, Published
from sagan_bench.data.sources._class_folders import PictureFiles, files_part, listed
from sagan_bench.data.sources._scanning import check_folder
from sagan_bench.data.sources._splitting import heads, split
from sagan_bench.data.sources._texts import read_lines, read_table

_PICTURES = "img_align_celeba"
_PARTITION = "list_eval_partition"
_ATTRIBUTES = "list_attr_celeba"
_FOLDERS = ("", "Eval", "Anno", "celeba", "CelebA")
_TRAIN, _TEST = "0", "2"  # in the partition file; 1 is for validation
_HEADER = 2  # lines, at most: how many pictures, and the attributes
_PARTS, _MARKS = frozenset("012"), frozenset(("-1", "0", "1"))

_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
PUBLISHED = Published(
    archives=(
        Archive(
            name="list_eval_partition.txt",
            url=_DRIVE + "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            md5="d32c9cbf5e040fd4025c592c306e6668",
            about_mib=3,
            holds=None,
        ),
        Archive(
            name="list_attr_celeba.txt",
            url=_DRIVE + "0B7EVK8r0v71pblRyaVFSWGxPY0U",
            md5="75e246fa4810816ffd6ee81facbd244c",
            about_mib=26,
            holds=None,
        ),
        Archive(
            name="img_align_celeba.zip",
            url=_DRIVE + "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            md5="00d2c5bc6d35e252742224ab0c1e8fcb",
            about_mib=1377,
            holds="img_align_celeba",
        ),
    ),
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    source="celeba:{root}",
)


@SOURCES.register("celeba")
class CelebA(PictureFiles):
    """CelebA; ``celeba:PATH#Smiling`` makes an attribute's absence and presence the classes.

    ``list_eval_partition`` gives the splits, its validation part unused; without it a tenth is held
    out. A folder with neither text files nor ``img_align_celeba`` is read as any folder of
    pictures, which is what the seed project does.
    """

    usage = "celeba:PATH"
    elsewhere = None
    cites = ("liu2015deep",)
    auto_crop_px = 160
    """Of pictures of 178 x 218, as heykeetae/Self-Attention-GAN has it."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        root, attribute = spec.selected
        check_folder(root, self.name)
        self.selection = attribute
        self.partition = _text_file(root, _PARTITION)
        self.attributes = _text_file(root, _ATTRIBUTES) if attribute else None
        texts = [read_table(path) for path in (self.partition, self.attributes) if path]
        sums = sha256(b"".join(texts)).hexdigest()
        self.scan(_pictures(root), attribute or "", sums)

    @classmethod
    def published(cls, category: str | None) -> Published:
        """Return the tables and the aligned pictures."""
        return PUBLISHED

    def listing(self) -> Listing:
        """Return faces by the partition; of a plain folder its pictures by their folders."""
        spec, attribute, folder = self.spec, self.selection, self.root
        if attribute is None and self.partition is None and heads(self.names):
            return listed(spec, folder, split(self.names, folder))
        if self.partition:
            train, test, rule = _partitioned(self.partition, folder, self.names)
        else:
            train, test, rule = hold_out(self.names)
        train = first_of(train, spec.train_images, "training", folder)
        test = first_of(test, spec.test_images, "test", folder)
        has = _has_attribute(self.attributes, attribute, train + test, folder) if attribute else {}
        labels = {name: int(has.get(name, False)) for name in train + test}
        parts = [
            files_part(folder, names, [labels[name] for name in names], spec.geometry)
            for names in (train, test)
        ]
        return Listing(
            classes=(f"not {attribute}", attribute) if attribute else ("faces",),
            train=parts[0],
            test=parts[1] if test else None,
            split_rule=rule,
        )


def _text_file(root: Path, stem: str) -> Path | None:
    """Return the file in the authors' format (.txt) or Kaggle's (.csv), where it is usual."""
    places = (root / folder / (stem + suffix) for folder in _FOLDERS for suffix in (".txt", ".csv"))
    return next((place for place in places if place.is_file()), None)


def _pictures(root: Path) -> Path:
    """Return the folder ``img_align_celeba`` that holds the pictures, else ``root``."""
    for above in (root, root / "Img", root / "celeba", root / "CelebA"):
        inside = above / _PICTURES
        if inside.is_dir():
            return inside / _PICTURES if (inside / _PICTURES).is_dir() else inside
    return root


def _partitioned(
    partition: Path, pictures: Path, names: list[str]
) -> tuple[list[str], list[str], str]:
    part = {name: values[0] for name, values in _rows(partition, 1, _PARTS).items()}
    train, test = (
        ranked([name for name, number in part.items() if number == wanted])
        for wanted in (_TRAIN, _TEST)
    )
    _refuse_missing(pictures, names, train + test, partition)
    if unnamed := sorted(set(names) - set(part)):
        raise UserError(
            f"{partition} says nothing of {len(unnamed)} of the {len(names)} pictures "
            f"({some(unnamed)}), it may be damaged or cut short; fetch it again, or move away what "
            "is no picture of CelebA"
        )
    if not train:
        raise UserError(f"{partition} names no picture for training; fetch it again")
    return train, test, f"{partition.name}: {_TRAIN} for training, {_TEST} for testing"


def _refuse_missing(pictures: Path, names: list[str], wanted: list[str], text: Path) -> None:
    if missing := sorted(set(wanted) - set(names)):
        raise UserError(
            f"{pictures} lacks {len(missing)} of the {len(wanted)} pictures that {text.name} "
            f"names ({some(missing)}); unpack the archive again, or read the folder as "
            f"folder:{pictures}"
        )


def _has_attribute(
    attributes: Path | None, attribute: str, names: list[str], pictures: Path
) -> dict[str, bool]:
    """Return for every picture whether it has the attribute."""
    if attributes is None:
        raise UserError(
            f"#{attribute} needs {_ATTRIBUTES}.txt or .csv beside {pictures}; put it there"
        )
    known = _header(attributes)
    if attribute not in known:
        raise UserError(f"{attributes} knows no attribute {attribute}; known: {', '.join(known)}")
    column = known.index(attribute)
    rows = _rows(attributes, len(known), _MARKS)
    has = {name: values[column] == "1" for name, values in rows.items()}
    if unnamed := sorted(set(names) - set(has)):
        raise UserError(f"{attributes} says nothing of {len(unnamed)} pictures ({some(unnamed)})")
    return has


def _header(path: Path) -> list[str]:
    lines = read_lines(path)
    first = lines[0].strip().split(",")[1:] if path.suffix == ".csv" else lines[1:2]
    known = first if path.suffix == ".csv" else "".join(first).split()
    if not known or "." in known[0]:
        raise UserError(f"{path} names no attributes in its header; fetch it again")
    return known


def _rows(path: Path, count: int, known: frozenset[str]) -> dict[str, list[str]]:
    """Return by picture the ``count`` values of its line, all of them ``known``."""
    separator = "," if path.suffix == ".csv" else None
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        name, *values = line.strip().split(separator) or [""]
        if not name or (not rows and number <= _HEADER and _is_header(values)):
            continue
        if "." not in name or len(values) != count or not known.issuperset(values):
            raise UserError(
                f"{path}, line {number}: expected NAME and numbers ({count}), found {line[:80]!r}; "
                "fetch it again"
            )
        if name in rows:
            raise UserError(f"{path}, line {number}: {name} once more; fetch it again")
        rows[name] = values
    if not rows:
        raise UserError(f"{path} names no pictures; fetch it again")
    return rows


def _is_header(values: Sequence[str]) -> bool:
    """Return whether a line, by what follows its first word, counts or names what is below."""
    return not _MARKS.union(_PARTS).intersection(values)
