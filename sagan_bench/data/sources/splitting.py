"""Which pictures of a folder are for training and which for testing.

Folders with a name of a split are splits and never classes: below ``train/`` and ``test/`` lie the
classes, or below each class lie its ``train/`` and ``test/``. Where neither fits it is refused.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import hold_out, printable, ranked, some

Role = Literal["train", "test", "val"]

_USUAL: dict[Role, str] = {
    "train": "train|training",
    "test": "test|testing",
    "val": "val|valid|validation|validate|dev|eval|evaluation",
}
_MORE = r"([ _-]?(set|data|split|images|imgs|\d{4}))?"
_ROLES: dict[Role, re.Pattern[str]] = {
    role: re.compile(f"({names}){_MORE}", re.IGNORECASE) for role, names in _USUAL.items()
}


class Splits(NamedTuple):
    """Names of the files of each split, and the folder (``train/``) that each lies in, if any."""

    train: list[str]
    test: list[str]
    train_folder: str
    test_folder: str
    rule: str


def split(names: list[str], root: Path) -> Splits:
    """Split by the folders that are called so, else by the hashes of the names.

    Raises:
        UserError: There are folders of splits, but not one for training and one for testing.
    """
    folders = heads(names)
    if any(map(role_of, folders)):
        return _by_folders(names, folders, root)
    if _classes_hold_splits(names):
        return _inside_classes(names, root)
    train, test, rule = hold_out(names)
    return Splits(train, test, "", "", rule)


def role_of(folder: str) -> Role | None:
    """Return the split that a folder of this name holds; None if it is no name of a split."""
    return next((role for role, usual in _ROLES.items() if usual.fullmatch(folder)), None)


def folder_of(role: Role, folders: Iterable[str], root: Path) -> str | None:
    """Return the one of ``folders`` that holds the split ``role``, if there is one."""
    found = [folder for folder in folders if role_of(folder) == role]
    if len(found) > 1:
        raise UserError(
            f"{root} holds {some(found)}, which all seem to be for "
            f"{'training' if role == 'train' else 'testing'}; leave one of them there"
        )
    return found[0] if found else None


def _by_folders(names: list[str], folders: Sequence[str], root: Path) -> Splits:
    train = folder_of("train", folders, root)
    # Two folders for validation matter only where they would be used.
    test = folder_of("test", folders, root) or (train and folder_of("val", folders, root))
    if train and test:
        return _of_two(names, train, test)
    if len(folders) == 1 and all("/" in name for name in names):
        return _of_one(names, folders[0])
    split_folders = [folder for folder in folders if role_of(folder)]
    lacking = "for testing (test/ or val/)" if train else "for training (train/)"
    raise UserError(
        f"{root} holds {some(split_folders)}, a folder of a split, but none {lacking} beside it; "
        f"put one there, or give {root / split_folders[0]}; if it is a class, give it another name"
    )


def _of_one(names: list[str], folder: str) -> Splits:
    """Hold a tenth of a lone ``train/`` out; where it holds folders it is refused as the level."""
    loose = any(name.count("/") == 1 for name in names)
    train, test, rule = hold_out(names)
    prefix = f"{folder}/" if loose else ""
    return Splits(train, test, prefix, prefix, f"{printable(folder)}/ alone, {rule}")


def _of_two(names: list[str], train_folder: str, test_folder: str) -> Splits:
    train, test = below(names, f"{train_folder}/"), below(names, f"{test_folder}/")
    rule = f"{printable(train_folder)}/ and {printable(test_folder)}/ of the folder"
    if unused := len(names) - len(train) - len(test):
        rule += f"; unused beside them: {unused}"
    splits = [name for name in heads(names) if role_of(name)]
    if others := [f"{name}/" for name in splits if name not in (train_folder, test_folder)]:
        rule += f", among them those of {some(others)}"
    return Splits(ranked(train), ranked(test), f"{train_folder}/", f"{test_folder}/", rule)


# --- classes that hold splits ----------------------------------------------------------------


def _classes_hold_splits(names: list[str]) -> bool:
    """Return whether classes hold folders of splits: ``cat/train/1.png``, ``dog/test/1.png``."""
    return len(heads(names)) > 1 and any(map(role_of, map(_second, names)))


def _second(name: str) -> str:
    """Return the second-level folder of a name, or nothing."""
    return name.split("/")[1] if name.count("/") > 1 else ""


def _inside_classes(names: list[str], root: Path) -> Splits:
    seconds = sorted(set(map(_second, names)))
    if beside := [name for name in names if not role_of(_second(name))]:
        raise UserError(
            f"{root}: some classes hold folders of splits ({some(list(filter(role_of, seconds)))}) "
            f"and some pictures do not lie in one ({printable(beside[0])}); give every class "
            "train/ and test/, or none"
        )
    train_folder = folder_of("train", seconds, root)
    test_folder = folder_of("test", seconds, root) or folder_of("val", seconds, root)
    if not (train_folder and test_folder):
        raise UserError(
            f"{root}: its classes hold {some(seconds)}; expected a folder for training and one for "
            "testing in each, or none"
        )
    train = [name for name in names if _second(name) == train_folder]
    test = [name for name in names if _second(name) == test_folder]
    unused = len(names) - len(train) - len(test)
    rule = f"{printable(train_folder)}/ and {printable(test_folder)}/ of each class"
    rule += f"; unused beside them: {unused}" if unused else ""
    return Splits(ranked(train), ranked(test), "", "", rule)


# --- names -----------------------------------------------------------------------------------


def below(names: Iterable[str], prefix: str) -> list[str]:
    """Return those of ``names`` that lie in the folder ``prefix``."""
    return [name for name in names if name.startswith(prefix)]


def heads(names: Iterable[str]) -> list[str]:
    """Return the first-level folders of ``names``, sorted."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})
