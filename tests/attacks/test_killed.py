"""Killed at its k-th change of the disk, a command goes on to the same bits.

One trial again: ``ATTACK='SIGKILL at 17' pytest -m slow -n 0 tests/attacks -k 'killed and train'``;
of all trials one in eight is made, and with ``ATTACK=all`` each.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import subjects
from crash import Trouble
from subjects import THIN, Subject, Trials, facts, renewed

pytestmark = pytest.mark.slow

EVERY = {
    "train": 1, "evaluate": 1, "report": 2, "prepare": 1, "rebuild": 1, "ablate": 7, "tune": 7,
}  # fmt: skip
"""What is killed at every so many operations."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with subjects.beginnings(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.mark.parametrize("name", EVERY)
def test_killed(
    name: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = Subject.undisturbed(name, folders, tmp_path / "here")
    trials = Trials(f"{name} killed")
    for number, copy in copies(subject, tmp_path / "copies", EVERY[name] * THIN):
        if trials.wants(str(Trouble(number))):
            renewed(copy, subject.here)
            trials.add(f"{Trouble(number)} ({subject.operations[number]})", subject.gone_on())
    trials.end(capsys)


def copies(subject: Subject, folder: Path, every: int) -> list[tuple[int, Path]]:
    """Return what kills would leave at every so many operations, by the operation's number."""
    folder.mkdir()
    ended = subject.troubled(Trouble(copies=folder, every=every))
    assert ended.code == 0, ended
    return sorted((int(path.name), path) for path in folder.iterdir())


def test_a_copy_is_what_a_kill_leaves(folders: dict[str, Path], tmp_path: Path) -> None:
    subject = Subject.undisturbed("train", folders, tmp_path / "here")
    for number, copy in copies(subject, tmp_path / "copies", 9):
        assert subject.troubled(Trouble(number)).code == -9
        assert left(subject.here) == left(copy), subject.operations[number]


def left(folder: Path) -> list[tuple[str, str]]:
    """Return name and kind of content of every file, whoever wrote it and how fast."""
    there = facts(folder)
    return sorted((re.sub(r"[0-9a-f]{8}-\d+-[0-9a-f]{8}", "*", k), sized(there[k])) for k in there)


def sized(content: object) -> str:
    return f"{len(content)} rows" if isinstance(content, list) else type(content).__name__
