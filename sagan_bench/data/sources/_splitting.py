"""Which pictures of a folder are for training and which for testing.

Folders with a name of a split are splits and never classes: below ``train/`` and ``test/`` lie the
classes, or below each class lie its ``train/`` and ``test/``. Where neither fits it is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import hold_out, printable, ranked, some
from sagan_bench.data.sources._split_names import (
    Role,
    is_neutral,
    plain_splits,
    role_of,
    splits_among,
)


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
    if roles := plain_splits(folders) or splits_among(folders, root):
        return _by_folders(names, folders, roles, root)
    if len(folders) > 1 and (roles := plain_splits(sorted(set(map(_second, names))))):
        return _inside_classes(names, roles, root)
    train, test, rule = hold_out(names)
    return Splits(train, test, "", "", rule)


def folder_of(role: Role, folders: Iterable[str], root: Path) -> str | None:
    """Return the one of ``folders`` that holds the split ``role``, if there is one."""
    return _only(role, {folder: role_of(folder) for folder in folders}, root)


def _only(role: Role, roles: Mapping[str, Role | None], root: Path) -> str | None:
    folders = [folder for folder, its in roles.items() if its == role]
    if len(folders) > 1:
        raise UserError(
            f"{root} holds {some(folders)}, which all seem to be for "
            f"{'training' if role == 'train' else 'testing'}; leave one of them there"
        )
    return folders[0] if folders else None


def _by_folders(
    names: list[str], folders: Sequence[str], roles: Mapping[str, Role], root: Path
) -> Splits:
    train = _only("train", roles, root)
    # Two folders for validation matter only where they would be used.
    test = _only("test", roles, root) or (train and _only("val", roles, root))
    if train and test:
        return _of_folders(names, train, test, roles)
    if len(folders) == 1 and all("/" in name for name in names):
        return _of_lone_folder(names, folders[0])
    split_folders = list(roles)
    lacking = "for testing (test/ or val/)" if train else "for training (train/)"
    raise UserError(
        f"{root} holds {some(split_folders)}, a folder of a split, but none {lacking} beside it; "
        f"put one there, or give {root / split_folders[0]}; if it is a class, give it another name"
    )


def _of_lone_folder(names: list[str], folder: str) -> Splits:
    """Hold a tenth of a lone ``train/`` out; where it holds folders it is refused as the level."""
    loose = any(name.count("/") == 1 for name in names)
    train, test, rule = hold_out(names)
    prefix = f"{folder}/" if loose else ""
    return Splits(train, test, prefix, prefix, f"{printable(folder)}/ alone, {rule}")


def _of_folders(
    names: list[str], train_folder: str, test_folder: str, roles: Mapping[str, Role]
) -> Splits:
    train, test = below(names, f"{train_folder}/"), below(names, f"{test_folder}/")
    inside = _levels(train, train_folder), _levels(test, test_folder)
    if not all(inside):
        inside = f"{train_folder}/", f"{test_folder}/"
    rule = f"{printable(inside[0])} and {printable(inside[1])} of the folder"
    if unused := len(names) - len(train) - len(test):
        rule += f"; unused beside them: {unused}"
    if others := [f"{name}/" for name in sorted(roles) if name not in (train_folder, test_folder)]:
        rule += f", among them those of {some(others)}"
    return Splits(ranked(train), ranked(test), *inside, rule)


def _levels(names: list[str], folder: str) -> str:
    """Return the lone folder that a split holds and that says nothing: ``a_train/images/``."""
    seconds = {_second(name) for name in names}
    (second,) = seconds if len(seconds) == 1 else ("",)
    plain = second == folder or (second and is_neutral(second))
    return f"{folder}/{second}/" if plain else ""


# --- classes that hold splits ----------------------------------------------------------------


def _second(name: str) -> str:
    """Return the second-level folder of a name, or nothing."""
    return name.split("/")[1] if name.count("/") > 1 else ""


def _inside_classes(names: list[str], roles: Mapping[str, Role], root: Path) -> Splits:
    """Split where classes hold folders of splits: ``cat/train/1.png``, ``dog/test/1.png``."""
    seconds = sorted(set(map(_second, names)))
    if beside := [name for name in names if _second(name) not in roles]:
        raise UserError(
            f"{root}: some classes hold folders of splits ({some(list(roles))}) "
            f"and some pictures do not lie in one ({printable(beside[0])}); give every class "
            "train/ and test/, or none"
        )
    train_folder = _only("train", roles, root)
    test_folder = _only("test", roles, root) or _only("val", roles, root)
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


def level_of_all(names: list[str]) -> tuple[str, ...]:
    """Say in words which folder lies below each first one and makes no difference."""
    folders, seconds = heads(names), {_second(name) for name in names}
    (second,) = seconds if len(seconds) == 1 else ("",)
    if len(folders) < 2 or not second:
        return ()
    return (
        f"no level of classes: {printable(second)}/, which each of {len(folders)} folders holds",
    )


# --- names -----------------------------------------------------------------------------------


def below(names: Iterable[str], prefix: str) -> list[str]:
    """Return those of ``names`` that lie in the folder ``prefix``."""
    return [name for name in names if name.startswith(prefix)]


def heads(names: Iterable[str]) -> list[str]:
    """Return the first-level folders of ``names``, sorted."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})
