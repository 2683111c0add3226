"""Checkpoints that are whole or not there: atomic writes, our own SHA-256, a fallback.

A checkpoint is what `torch.save` writes, a zip archive, and `torch.load` loads it.  Its comment
holds the SHA-256 of that, because torch itself loads a flipped byte silently.
"""

import hashlib
import logging
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_file
from sagan_bench.core.stored import refuse_special
from sagan_bench.runs.records import WEIGHTS
from sagan_bench.training import kept

MAGIC = b"sagan-bench checkpoint 2\n"
"""What the comment begins with; the SHA-256 of what torch wrote, without a comment, follows."""
OLDER = b"sagan-bench checkpoint 1\n"
"""What older files begin with; the SHA-256 of the rest follows, and then what torch wrote."""

_DIGEST_BYTES = 32
_NO_COMMENT = struct.pack("<H", 0)
"""The end of an archive without a comment: its length."""
_END_BYTES = len(_NO_COMMENT) + len(MAGIC) + _DIGEST_BYTES
_CHUNK_BYTES = 2**20
_NAME = re.compile(r"step-(\d+)\.ckpt")

_log = logging.getLogger(__name__)


class DamagedCheckpoint(UserError):
    """The file is not, byte for byte, what was saved."""


class _HashingWriter:
    """Passes what torch.save writes on to a file and hashes it, so that no copy is held."""

    def __init__(self, file: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error  # torch would raise another, of its own file format
            raise

    def flush(self) -> None:
        self._file.flush()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and strings in one step.

    Raises:
        TypeError: If ``state`` holds what ``weights_only`` loading would refuse.
        ValueError: If a key carries a wrapper's prefix (``_orig_mod.``, ``module.``).
    """
    _check(state, "state")
    with atomic_file(path) as file:
        payload = _HashingWriter(file)
        try:
            torch.save(state, payload)  # type: ignore[arg-type]  # needs write and flush only
        except RuntimeError:
            if payload.error:
                raise payload.error from None
            raise
        file.seek(-len(_NO_COMMENT), os.SEEK_END)
        file.write(_end(payload.hash.digest()))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 that a file says its content has; `load` looks whether it has.

    Raises:
        DamagedCheckpoint: If it is not a file of :func:`save`.
    """
    refuse_special(path)
    with path.open("rb") as file:
        return _digest_in(file, path)[0].hex()


def _end(digest: bytes) -> bytes:
    """Return what a file ends with: the length of the comment, and the comment."""
    comment = MAGIC + digest
    return struct.pack("<H", len(comment)) + comment


def load(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint, its tensors on the CPU, after checking every byte.

    Raises:
        DamagedCheckpoint: If the file is not what :func:`save` wrote.
    """
    refuse_special(path)
    with path.open("rb") as file:
        digest, is_older = _digest_in(file, path)
        start = file.tell() if is_older else 0
        if _hashed(file, start, whole=is_older) != digest:
            raise DamagedCheckpoint(_damage(path, "its SHA-256 is not that of its content"))
        file.seek(start)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, ValueError) as error:
            raise DamagedCheckpoint(_damage(path, "it was not saved here")) from error


def _digest_in(file: BinaryIO, path: Path) -> tuple[bytes, bool]:
    """Return the digest in a file, and whether it is an older one, which has it at the beginning.

    Raises:
        DamagedCheckpoint: there is none.
    """
    is_older = file.read(len(OLDER)) == OLDER
    digest = file.read(_DIGEST_BYTES) if is_older else _digest_at_the_end(file)
    if digest is None:
        raise DamagedCheckpoint(_damage(path, "it is not one, or it is cut short"))
    return digest, is_older


def _digest_at_the_end(file: BinaryIO) -> bytes | None:
    """Return the digest in the comment of a file; None if it has no such."""
    if file.seek(0, os.SEEK_END) < _END_BYTES:
        return None
    file.seek(-_END_BYTES, os.SEEK_END)
    end = file.read()
    digest = end[-_DIGEST_BYTES:]
    return digest if end == _end(digest) else None


def _hashed(file: BinaryIO, start: int, *, whole: bool) -> bytes:
    """Return the SHA-256 of a file from ``start``, or of what torch wrote before the comment."""
    size = file.seek(0, os.SEEK_END)
    left = size - start if whole else size - _END_BYTES
    file.seek(start)
    digest = hashlib.sha256()
    while left > 0 and (part := file.read(min(left, _CHUNK_BYTES))):
        digest.update(part)
        left -= len(part)
    if not whole:
        digest.update(_NO_COMMENT)
    return digest.digest()


def _damage(path: Path, detail: str) -> str:
    return f"damaged checkpoint: {detail}; {path}; restore it from a copy or delete it"


def _check(value: Any, where: str) -> None:
    """Refuse now what could not be loaded on the day it is needed."""
    if isinstance(value, dict):
        for key, inner in value.items():
            parts = str(key).split(".")
            if "_orig_mod" in parts or (parts[0] == "module" and len(parts) > 1):
                raise ValueError(f"{where}: key {key!r} carries a wrapper's prefix")
            _check(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]")
    elif not (isinstance(value, Tensor) or type(value) in {int, float, bool, str, type(None)}):
        raise TypeError(f"{where}: a {type(value).__name__} has no place in a checkpoint")


class Checkpoints:
    """The checkpoints of a run, ``step-00001000.ckpt``: the newest ``keep`` of them.

    That of its end may be lean: what the exported weights beside the folder hold is theirs alone.
    Only the holder of the run directory may save, slim or clear.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.weights = folder.parent / WEIGHTS
        self.keep = keep
        self._whole: int | None = None

    def newest_step(self) -> int | None:
        """Return the step of the checkpoint last saved or loaded here, so one known to be whole."""
        return self._whole

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of ``step``, then remove those that are no longer needed."""
        save(self.folder / f"step-{step:08d}.ckpt", state)
        self._whole = step
        files = self._by_step()
        # Later ones belong to a past that was given up: they were damaged.
        stay = [other for other in files if other <= step][: self.keep]
        for other in files.keys() - stay:
            files[other].unlink()

    def slim(self) -> None:
        """Leave the newest checkpoint alone, without what the exported weights of its step hold.

        It is replaced in one step, so that a kill leaves one that is whole, or lean.

        Raises:
            UserError: As `latest`, or if the exported weights are damaged.
            OSError: As of writing a file.
        """
        step, state = self.latest(lean=True) or (0, dict[str, Any]())
        if state and kept.ELSEWHERE not in state:
            weights = load(self.weights)
            if weights["step"] == step:
                self.save(step, kept.lean(state, weights, sha256_of(self.weights)))
        for other, path in self._by_step().items():
            if other != step:
                path.unlink()

    def latest(self, *, lean: bool = False) -> tuple[int, dict[str, Any]] | None:
        """Return step and state of the newest whole checkpoint, null if there never was one.

        Args:
            lean: as it lies there: G and its average may lack what the exported weights hold.

        Raises:
            UserError: If there are checkpoints and all are damaged.
        """
        files = self._by_step()
        for step, path in files.items():
            try:
                state = load(path) if lean else self._filled(path)
            except DamagedCheckpoint as error:
                _log.warning("%s: falling back to the checkpoint before", error)
            else:
                self._whole = step
                return step, state
        if files:
            raise UserError(
                f"every checkpoint is damaged; {self.folder}; restore one from a copy, or add "
                "--no-resume to start over, which moves the directory aside"
            )
        return None

    def _filled(self, path: Path) -> dict[str, Any]:
        """Return a state with what the exported weights hold of it.

        Raises:
            DamagedCheckpoint: As `load`, of either file; or those weights are others.
        """
        state = load(path)
        if kept.ELSEWHERE not in state:
            return state
        if not self.weights.exists():
            raise DamagedCheckpoint(_damage(path, f"{self.weights.name}, a part of it, is gone"))
        weights = load(self.weights)
        if sha256_of(self.weights) != state[kept.ELSEWHERE]["sha256"]:
            raise DamagedCheckpoint(_damage(path, f"{self.weights.name}, a part of it, is another"))
        return kept.whole(state, weights)

    def clear(self) -> None:
        """Remove every checkpoint."""
        for path in self._by_step().values():
            path.unlink()
        self._whole = None

    def _by_step(self) -> dict[int, Path]:
        """Return the files by their step, newest first."""
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("*.ckpt"))
        files = {int(match[1]): path for match, path in named if match}
        return dict(sorted(files.items(), reverse=True))
