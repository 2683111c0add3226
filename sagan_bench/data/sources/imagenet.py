"""ImageNet as ILSVRC2012 is unpacked: ``train/<wnid>/*.JPEG``, and ``val/<wnid>/*.JPEG``."""

import logging
import re
from functools import partial
from pathlib import Path

from sagan_bench.data.listing import DataSpec, Listing, Source, ranked, some
from sagan_bench.data.sources.folder import (
    Splits,
    below,
    files_key,
    heads,
    listed,
    scan,
    split,
)
from sagan_bench.errors import UserError

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
    files = scan(root)
    return Source(
        kind="imagenet",
        image_size=spec.image_size,
        key=files_key(spec, root, files),
        listing=partial(_listing, spec, root, [file.name for file in files]),
        geometry=spec.geometry,
    )


def _listing(spec: DataSpec, root: Path, names: list[str]) -> Listing:
    prefix = "train/" if "train" in heads(names) else ""
    train = below(names, prefix)
    folders = heads(name.removeprefix(prefix) for name in train)
    if other := [name for name in folders if not _WNID.fullmatch(name)] or not folders:
        raise UserError(_unlike(root, prefix, other if isinstance(other, list) else []))
    if not prefix:
        return listed(spec, root, split(train, ()))
    val = below(names, "val/")
    if all(name.count("/") > 1 for name in val) and val:
        return listed(spec, root, split(train + val, ("val",)))
    rule = "train/ of the folder, all for training"
    if val:
        rule += f"; unused: val/, whose {len(val)} images lie in no class folders"
        _logger.warning("%s is not used: sort its images into class folders", root / "val")
    return listed(spec, root, Splits(ranked(train), [], prefix, "", rule))


def _unlike(root: Path, prefix: str, other: list[str]) -> str:
    found = f"{root / prefix} holds {some(other) if other else 'images in no class folder'}"
    expected = "expected train/<wnid>/*.JPEG with wnids such as n01440764"
    near = next((root / name for name in _USUAL_PLACES if (root / name / "train").is_dir()), None)
    hint = f"did you mean imagenet:{near}?" if near else "for other folders use folder:PATH"
    return f"{found}; {expected}; {hint}"
