"""Errands: what is done or found out on a machine of a cluster before runs are handed over.

An errand is asked as JSON and answers as JSON, through a file (``python -m ... FILE.json``, which
leaves FILE.answer) or by a call of `done`: what ``auto`` means there, which versions and folders it
has, data made ready, all that ``doctor`` looks at.
"""

import platform
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.stored import first_trouble
from sagan_bench.data import building
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import cache_root
from sagan_bench.runs.environment import environment
from sagan_bench.session.capabilities import capabilities
from sagan_bench.session.examination import Finding, examine

ANSWER = ".answer"
VERSIONS = ("python", "torch", "torchvision")
"""By which machines may differ."""
MEND_VERSIONS = "set python or setup of the profile, so that runs have the environment of here"


@dataclass(frozen=True)
class Errand:
    """What is to be done."""

    marks: Mapping[str, str] = field(default_factory=dict)
    """File that was written here -> its content: whether it is seen there too."""
    config: Mapping[str, Any] | None = None
    """Of a run, as JSON: what its ``auto`` means there."""
    prepare: bool = False
    """Also make ready the images of the configuration, where all marks are seen."""
    workers: int = 1
    """Processes that decode."""
    examine: bool = False
    """Look at everything that a run needs or could use."""


@dataclass(frozen=True)
class Answer:
    """What came of it."""

    node: str
    versions: Mapping[str, str | None]
    unseen: tuple[str, ...] = ()
    """Of the marks."""
    host: Host | None = None
    findings: tuple[Finding, ...] = ()
    refused: str | None = None
    """What a user is to mend."""

    @property
    def differing(self) -> dict[str, tuple[str | None, str | None]]:
        """Return each version that is another here: (here, there)."""
        pairs = {name: (here, self.versions.get(name)) for name, here in versions().items()}
        return {name: pair for name, pair in pairs.items() if _public(pair[0]) != _public(pair[1])}


_ERRAND, _ANSWER = TypeAdapter(Errand), TypeAdapter(Answer)


def versions() -> dict[str, str | None]:
    """Return the versions of this process by which machines may differ."""
    return environment("cpu").model_dump(include={*VERSIONS})


def _public(version: str | None) -> str:
    """Return a version without what a build adds to it: ``2.15.0`` of ``2.15.0+cu126``."""
    return (version or "").partition("+")[0]


# --- Here ---


@contextmanager
def marked(folders: Iterable[Path]) -> Iterator[dict[str, str]]:
    """Have a file in each folder within the block, and yield their contents by path."""
    marks = {
        str(folder.absolute() / f".seen-{secrets.token_hex(4)}"): secrets.token_hex(8)
        for folder in folders
    }
    try:
        for path, content in marks.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(Path(path), content.encode())
        yield marks
    finally:
        for path in marks:
            Path(path).unlink(missing_ok=True)


def written(errand: Errand, folder: Path) -> str:
    """Return an errand as JSON, and leave what its configuration needs in a folder seen there."""
    folder.mkdir(parents=True, exist_ok=True)
    extensions.leave(extensions.require((errand.config or {}).get("own") or {}), folder)
    return _ERRAND.dump_json(errand).decode()


def answered(text: str) -> Answer:
    """Return the answer in JSON.  Raises `UserError` if it is none."""
    try:
        return _ANSWER.validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"the node's answer cannot be read ({first_trouble(error)}); give the command again"
        ) from error


def unseen(node: str, folder: Path) -> str:
    """Return what to say of a folder that a node does not see, and what to do."""
    cache = cache_root().absolute()
    where = "set SAGAN_BENCH_CACHE to a folder" if folder == cache else "choose --runs"
    return f"{node} does not see {folder}: {where} on a file system that nodes share"


def refuse(answer: Answer) -> None:
    """Refuse a node on which the runs of an experiment cannot be, or would be others.

    Raises:
        UserError: it does not see a folder, has another torch, or said why.
    """
    for mark in answer.unseen:
        raise UserError(unseen(answer.node, Path(mark).parent))
    if "torch" in answer.differing:
        raise UserError(f"{answer.node} has {differences(answer)}; {MEND_VERSIONS}")
    if answer.refused:
        raise UserError(f"{answer.node}: {answer.refused}")


def differences(answer: Answer) -> str:
    """Return in words which versions differ."""
    pairs = answer.differing.items()
    return ", ".join(f"{name} {there or 'none'} (here {here})" for name, (here, there) in pairs)


# --- There ---


def done(text: str, folder: Path) -> str:
    """Do an errand on this machine.

    Args:
        text: as `written` returned it.
        folder: with copies of the files of components that it needs.

    Returns:
        What `answered` takes.
    """
    errand = _ERRAND.validate_json(text)
    unseen = tuple(path for path, content in errand.marks.items() if _read(Path(path)) != content)
    host, findings, refused = None, tuple[Finding, ...](), None
    try:
        if errand.examine:
            findings = tuple(examine())
        if errand.config is not None:
            host = _host(errand, folder, prepare=errand.prepare and not unseen)
    except UserError as error:
        refused = str(error)
    answer = Answer(platform.node(), versions(), unseen, host, findings, refused)
    return _ANSWER.dump_json(answer).decode()


def _host(errand: Errand, folder: Path, *, prepare: bool) -> Host:
    """Return what ``auto`` means here, with the data ready.  Raises `UserError`."""
    given = dict(errand.config or {})
    extensions.require(given.get("own") or {}, folder)
    config = RunConfig.model_validate(given)
    host = capabilities(config)
    if prepare:
        spec, skip_bad = DataSpec.of(config.data), config.run.skip_bad
        building.prepare(spec, workers=errand.workers, skip_bad=skip_bad)
    return host


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def main(file: Path) -> int:
    """Do the errand in a file, and leave its answer beside it."""
    answer = done(file.read_text(), file.parent)
    atomic_write(file.with_suffix(ANSWER), answer.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
