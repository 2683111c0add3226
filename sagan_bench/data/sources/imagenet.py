"""ImageNet as ILSVRC2012 is unpacked: ``train/<wnid>/*.JPEG``, and ``val/<wnid>/*.JPEG``."""

import logging
import re
from functools import partial
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import DataSpec, Listing, Source, hold_out, ranked, some
from sagan_bench.data.sources.folder import listed
from sagan_bench.data.sources.scanning import files_key, scan
from sagan_bench.data.sources.splitting import Splits, below, folder_of, heads

_WNID = re.compile(r"n\d{8}")
_USUAL_PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "ILSVRC2012", "imagenet")
_logger = logging.getLogger(__name__)


def imagenet(spec: DataSpec) -> Source:
    """Find ImageNet, or a part of it with folders of the same kind.

    ``val/`` is the test split if it is sorted into class folders. Left flat, as its archive
    unpacks, it names no class and is not used; there is no test split then. Without ``train/``,
    the folder itself holds the class folders, and a tenth is held out.
    """
    root = spec.path
    found = scan(root)
    return Source(
        kind="imagenet",
        image_size=spec.image_size,
        key=files_key(spec, root, found.files),
        listing=partial(_listing, spec, root, found.names),
        geometry=spec.geometry,
        remarks=found.remarks,
    )


def _listing(spec: DataSpec, root: Path, names: list[str]) -> Listing:
    folder = folder_of("train", heads(names), root)
    prefix = f"{folder}/" if folder else ""
    train = below(names, prefix)
    folders = heads(name.removeprefix(prefix) for name in train)
    if other := [name for name in folders if not _WNID.fullmatch(name)] or not folders:
        raise UserError(_unlike(root, prefix, other if isinstance(other, list) else []))
    if not prefix:
        train, test, rule = hold_out(train)
        return listed(spec, root, Splits(train, test, "", "", rule))
    return listed(spec, root, _split(names, ranked(train), prefix, root))


def _split(names: list[str], train: list[str], prefix: str, root: Path) -> Splits:
    """Take the folder of validation for testing, if its pictures lie in class folders."""
    folder = folder_of("val", heads(names), root)
    val = below(names, f"{folder}/") if folder else []
    if val and all(name.count("/") > 1 for name in val):
        rule = f"{prefix} and {folder}/ of the folder"
        return Splits(train, ranked(val), prefix, f"{folder}/", rule)
    rule = f"{prefix} of the folder, all for training"
    if val:
        rule += f"; unused: {folder}/, whose {len(val)} images lie in no class folders"
        _logger.warning("%s is not used: sort its images into class folders", root / str(folder))
    return Splits(train, [], prefix, "", rule)


def _unlike(root: Path, prefix: str, other: list[str]) -> str:
    found = f"{root / prefix} holds {some(other) if other else 'images in no class folder'}"
    expected = "expected train/<wnid>/*.JPEG with wnids such as n01440764"
    near = next((root / name for name in _USUAL_PLACES if (root / name / "train").is_dir()), None)
    hint = f"did you mean imagenet:{near}?" if near else "for other folders use folder:PATH"
    return f"{found}; {expected}; {hint}"
