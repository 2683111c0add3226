"""On a disk that fails at its k-th change, a command says so, and goes on to the same bits.

One trial again: ``ATTACK='EIO at 17' pytest -m slow -n 0 tests/attacks -k 'bad_disk and train'``;
of all trials one in eight is made, and with ``ATTACK=all`` each.
"""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import subjects
from crash import Ended, Trouble
from subjects import THIN, Subject, Trials

pytestmark = pytest.mark.slow

FAULTS = (
    Trouble(0, errno.EIO),
    Trouble(0, errno.ENOSPC, lasting=True),
    Trouble(0, errno.ENOSPC),
    Trouble(0, errno.EIO, lasting=True),
)
EVERY = {
    "train": (3, 1), "evaluate": (2, 1), "report": (4, 1), "prepare": (3, 1), "rebuild": (3, 1),
    "ablate": (21, 1), "tune": (105, 1),
}  # fmt: skip
"""What is failed at every so many operations, and by how many of the `FAULTS` there, in turn."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with subjects.beginnings(tmp_path_factory.mktemp("bad-disk")) as made:
        yield made


@pytest.mark.parametrize("name", EVERY)
def test_bad_disk(
    name: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = Subject.undisturbed(name, folders, tmp_path / "here")
    trials = Trials(f"{name} on a bad disk")
    every, kinds = EVERY[name]
    for turn, number in enumerate(range(0, len(subject.operations), every * THIN)):
        for kind in range(kinds):
            trouble = FAULTS[(turn * kinds + kind) % len(FAULTS)]._replace(at=number)
            if trials.wants(str(trouble)):
                trials.add(f"{trouble} ({subject.operations[number]})", failed(subject, trouble))
    trials.end(capsys)


def failed(subject: Subject, trouble: Trouble) -> str | None:
    """Return what is wrong with the end on a bad disk, or with the same command again."""
    told = [*said(subject.troubled(trouble), subject.here), subject.gone_on()]
    return "; ".join(filter(None, told)) or None


def said(ended: Ended, here: Path) -> Iterator[str]:
    """Tell what is wrong with how a command ended.

    It may do without what it could not write (a cache), or end with 2 and the path; a study may end
    with 3 because of a cell.
    """
    places = (str(here), "the-", "reports")
    if ended.code not in (0, 2, 3):
        yield str(ended)
    elif ended.code and not any(place in ended.stderr for place in places):
        yield f"no path is named: {ended}"
    for file in here.glob("the-runs/**/record.json"):
        yield from status(file)


def status(file: Path) -> Iterator[str]:
    from sagan_bench.core.errors import UserError
    from sagan_bench.runs.run_directory import read_now

    try:
        found = read_now(file.parent)
    except UserError as error:
        yield f"{file.name} is damaged: {error}"
    else:
        if found.status == "failed":
            yield f"a failure of the machine is a result: {found.reason}"
