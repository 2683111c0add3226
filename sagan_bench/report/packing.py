"""The folder of a report -> one file to mail: its page, and the data that its links lead to."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.report.publish import DATA, JSON, PAGE

TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in it: the earliest that a ZIP knows."""


def pack(folder: Path) -> Path:
    """Write ``<folder>.zip`` beside the folder of a report, and return its path.

    It unpacks to a folder of that name with the page and its data.  The same report gives the same
    bytes with the same version of zlib.

    Raises:
        UserError: the folder holds no report.
    """
    folder = folder if folder.name.strip(".") else folder.resolve()  # which has a name
    if not (folder / PAGE).exists() or not (folder / DATA / JSON).exists():
        raise UserError(f"no report is in {folder}; make one with `report`")
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in _files(folder):
            name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo(name, TIME)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes())
    path = folder.with_name(f"{folder.name}.zip")
    atomic_write(path, written.getvalue())
    return path


def _files(folder: Path) -> Iterator[Path]:
    """Yield the page and its data in order; a link would be a file of elsewhere."""
    yield folder / PAGE
    for file in sorted((folder / DATA).iterdir()):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            yield file
