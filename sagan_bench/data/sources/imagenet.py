"""ImageNet as ILSVRC2012 is unpacked: ``train/<wnid>/*.JPEG``, and ``val/<wnid>/*.JPEG``."""

import logging
import re
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.listing import DataSpec, Listing, hold_out, ranked, some
from sagan_bench.data.sources._class_folders import PictureFiles, listed
from sagan_bench.data.sources._splitting import Splits, below, folder_of, heads

_WNID = re.compile(r"n\d{8}")
_USUAL_PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "ILSVRC2012", "imagenet")
_logger = logging.getLogger(__name__)


@SOURCES.register("imagenet")
class ImageNet(PictureFiles):
    """ImageNet, or a part of it with folders of the same kind.

    ``val/`` is the test split if it is sorted into class folders. Left flat, as its archive
    unpacks, it names no class and is not used; there is no test split then. Without ``train/``,
    the folder itself holds the class folders, and a tenth is held out.
    """

    usage = "imagenet:PATH"
    cites = ("russakovsky2015imagenet",)
    elsewhere = (
        "ImageNet needs an account: fetch ILSVRC2012 from https://image-net.org, unpack it to "
        "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, and use --data imagenet:PATH"
    )

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.scan(spec.path)

    def listing(self) -> Listing:
        """Return the pictures by their wnids."""
        spec, root, names = self.spec, self.root, self.names
        folder = folder_of("train", heads(names), root)
        prefix = f"{folder}/" if folder else ""
        train = below(names, prefix)
        folders = heads(name.removeprefix(prefix) for name in train)
        others = [name for name in folders if not _WNID.fullmatch(name)]
        if others or not folders:
            raise UserError(_unlike(root, prefix, others))
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


def _unlike(root: Path, prefix: str, others: list[str]) -> str:
    there = f"{root / prefix} holds {some(others) if others else 'images in no class folder'}"
    expected = "expected train/<wnid>/*.JPEG with wnids such as n01440764"
    near = next((root / name for name in _USUAL_PLACES if (root / name / "train").is_dir()), None)
    hint = f"did you mean imagenet:{near}?" if near else "for other folders use folder:PATH"
    return f"{there}; {expected}; {hint}"
