"""Killed at its k-th change of the disk, a command goes on to the same bits.

One trial again: ``ATTACK='SIGKILL at 17' pytest -m slow -n 0 tests/attacks -k 'killed and train'``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import subjects
from crash import Trouble
from subjects import Subject, Trials

pytestmark = pytest.mark.slow

EVERY = {
    "train": 1, "evaluate": 1, "report": 1, "prepare": 1, "rebuild": 1, "ablate": 7, "tune": 7,
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
    # A kill before an fsync leaves what a kill after it does.
    changes = [n for n, what in enumerate(subject.operations) if not what.startswith("fsync")]
    for trouble in map(Trouble, changes[:: EVERY[name]]):
        if trials.wants(str(trouble)):
            trials.add(f"{trouble} ({subject.operations[trouble.at]})", killed(subject, trouble))
    trials.end(capsys)


def killed(subject: Subject, trouble: Trouble) -> str | None:
    """Return what is wrong after a kill and the same command again."""
    ended = subject.troubled(trouble)
    return subject.gone_on() if ended.code == -9 else f"it was not killed: {ended}"
