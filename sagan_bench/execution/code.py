"""This package as it is now, copied for runs that begin later, or elsewhere."""

import hashlib
import os
import shutil
from pathlib import Path

from sagan_bench.config.variants import shipped
from sagan_bench.core.files import atomic_write, json_bytes
from sagan_bench.core.registry import ROOT
from sagan_bench.runs.environment import COMMIT, git_state


def copied(folder: Path) -> Path:
    """Return the folder in ``folder`` that holds this package as it is, to be put on its path.

    Its name has the hash of the content, so that it is copied once, and runs that were handed over
    before an edit keep what they were handed over with.
    """
    files = {
        str(file.relative_to(top.parent)): file.read_bytes()
        for top in dict.fromkeys((ROOT, shipped("ablations")))
        for file in sorted(top.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    }
    content = hashlib.sha256()
    for name, data in files.items():
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    target = folder / f"code-{content.hexdigest()[:12]}"
    if not target.exists():
        _copy(files, target)
    return target


def _copy(files: dict[str, bytes], target: Path) -> None:
    half = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    for name, data in files.items():
        file = half / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    commit, dirty = git_state(ROOT)
    atomic_write(half / COMMIT, json_bytes({"commit": commit, "dirty": dirty}))
    os.rename(half, target)
