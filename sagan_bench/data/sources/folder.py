"""Folders of picture files, whatever lies in them."""

from sagan_bench.core.registry import SOURCES
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources._class_folders import PictureFiles, listed
from sagan_bench.data.sources._splitting import level_of_all, split


@SOURCES.register("folder")
class Folder(PictureFiles):
    """A folder of pictures, with or without a subfolder for each class.

    Without subfolders there is one class, ``images``. ``train/`` with ``test/`` or ``val/``, or
    what else the two are usually called, are splits; else a picture is held out for testing where
    the hash of its name falls in the lowest tenth. The order is that of the hashes: the first n of
    a split are a fair sample of it.
    """

    usage = "folder:PATH"
    elsewhere = "your own pictures need no download: use --data folder:PATH"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.scan(spec.path)
        self.remarks += level_of_all(self.names)

    def listing(self) -> Listing:
        """Return the pictures by the folders they lie in."""
        return listed(self.spec, self.root, split(self.names, self.root))
