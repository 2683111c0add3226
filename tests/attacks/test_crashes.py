"""Killed or failed at its k-th change of the disk, a command goes on to the same bits.

One trial again: ``ATTACK='SIGKILL at 17' pytest -m slow -n 0 tests/attacks -k 'killed and train'``.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import subjects
from crash import Ended, Trouble, cli
from subjects import Trials, differences, facts, ran, renewed

pytestmark = pytest.mark.slow

Out = pytest.CaptureFixture[str]
FAULTS = (
    Trouble(0, errno.EIO), Trouble(0, errno.ENOSPC, lasting=True),
    Trouble(0, errno.ENOSPC), Trouble(0, errno.EIO, lasting=True),
)  # fmt: skip
KILLED = {"train": 1, "evaluate": 1, "report": 1, "prepare": 1, "rebuild": 1, "ablate": 7,
          "tune": 7}  # fmt: skip
"""What is killed at every so many operations."""
FAILED = {"train": (1, 1), "evaluate": (1, 2), "report": (1, 1), "prepare": (1, 4),
          "rebuild": (1, 2), "ablate": (7, 1), "tune": (35, 1)}  # fmt: skip
"""What is failed at every so many operations, and by how many of the `FAULTS` there, in turn."""


class Subject(NamedTuple):
    """A command in a folder, and what it leaves there and does when nothing disturbs it."""

    folder: Path
    command: tuple[str, ...]
    left: dict[str, Any]
    operations: tuple[str, ...]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The folders in which commands begin, by what is attacked there; all is imported."""
    made = tmp_path_factory.mktemp("attacked")
    with subjects.made_quick():
        few = ("train", "evaluate", "ablate", "tune", "prepare", "report")
        begun = subjects.files(made / "begun")
        subjects.studies(begun)
        subjects.warm(renewed(begun, made / "warm"), *(COMMANDS[name] for name in few))
        subjects.frozen()
        trained = ran(renewed(begun, made / "trained"), subjects.TRAIN)
        prepared = ran(renewed(begun, made / "prepared"), subjects.TRAIN, subjects.PREPARE)
        subjects.damage_store(prepared)
        yield {
            "train": subjects.without_runs(renewed(trained, made / "train")), "evaluate": trained,
            "report": begun, "prepare": begun, "rebuild": prepared, "ablate": begun, "tune": begun,
        }  # fmt: skip


COMMANDS = {
    "train": subjects.TRAIN, "evaluate": subjects.EVALUATE, "report": subjects.REPORT,
    "prepare": subjects.PREPARE, "rebuild": subjects.PREPARE, "ablate": subjects.ABLATE,
    "tune": subjects.TUNE,
}  # fmt: skip


def undisturbed(name: str, folders: dict[str, Path], here: Path) -> Subject:
    """Run the command to its end, twice: what it leaves is always the same."""
    folder, command = folders[name], COMMANDS[name]
    left = []
    for _ in range(2):
        ended = cli(*command, cwd=renewed(folder, here), trouble=Trouble())
        assert ended.code == 0, ended
        left.append(facts(here))
    assert differences(*left) == ""
    return Subject(folder, command, left[0], ended.operations)


@pytest.mark.parametrize("name", KILLED)
def test_killed(name: str, folders: dict[str, Path], tmp_path: Path, capsys: Out) -> None:
    here = tmp_path / "here"
    subject = undisturbed(name, folders, here)
    # A kill before an fsync leaves what a kill after it does.
    at = [i for i, op in enumerate(subject.operations) if not op.startswith("fsync")]
    trials = Trials(f"{name} killed")
    for number in at[:: KILLED[name]]:
        trouble = Trouble(number)
        if trials.wants(str(trouble)):
            trials.add(f"{trouble} ({subject.operations[number]})", killed(subject, trouble, here))
    trials.end(capsys)


def killed(subject: Subject, trouble: Trouble, here: Path) -> str | None:
    """Return what is wrong after a kill and the same command again."""
    first = cli(*subject.command, cwd=renewed(subject.folder, here), trouble=trouble)
    if first.code != -9:
        return f"it was not killed: {first}"
    return gone_on(subject, here)


def gone_on(subject: Subject, here: Path) -> str | None:
    """Return what is wrong with the same command again."""
    again = cli(*subject.command, cwd=here)
    if again.code:
        return f"the same command again: {again}"
    return differences(facts(here), subject.left) or None


@pytest.mark.parametrize("name", FAILED)
def test_failed(name: str, folders: dict[str, Path], tmp_path: Path, capsys: Out) -> None:
    here = tmp_path / "here"
    subject = undisturbed(name, folders, here)
    every, kinds = FAILED[name]
    trials = Trials(f"{name} with a bad disk")
    for number in range(0, len(subject.operations), every):
        for kind in range(kinds):
            trouble = FAULTS[(number // every + kind) % len(FAULTS)]._replace(at=number)
            if trials.wants(str(trouble)):
                op = subject.operations[number]
                trials.add(f"{trouble} ({op})", failed(subject, trouble, here))
    trials.end(capsys)


def failed(subject: Subject, trouble: Trouble, here: Path) -> str | None:
    """Return what is wrong with the end on a bad disk, or with the same command again."""
    first = cli(*subject.command, cwd=renewed(subject.folder, here), trouble=trouble)
    return "; ".join(filter(None, [*said(first, here), gone_on(subject, here)])) or None


def said(ended: Ended, here: Path) -> Iterator[str]:
    """Tell what is wrong with how a command ended on a bad disk.

    It may do without what it could not write (a cache), or end with 2 and the path; a study ends
    with 3 if a cell could not be run.
    """
    if ended.code not in (0, 2, 3):
        yield str(ended)
    elif ended.code and not any(
        f"{part}{os.sep}" in ended.stderr for part in (here, *(p.name for p in here.iterdir()))
    ):
        yield f"no path is named: {ended}"
    for record in here.glob("the-runs/**/record.json"):
        yield from status(record)


def status(file: Path) -> Iterator[str]:
    from sagan_bench.errors import UserError
    from sagan_bench.run_directory import read_now

    try:
        found = read_now(file.parent)
    except UserError as error:
        yield f"{file.name} is damaged: {error}"
    else:
        if found.status == "failed":
            yield f"a failure of the machine is a result: {found.reason}"
