"""Which split a folder holds, by its name: ``train``, ``seg_train``, ``01_test``, ``trainA``.

A name that only says its split is always one. A name that says more (``seg_train``) may be that of
a class (``bullet_train``): it is one of a split where another says the same of the other split.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import some

Role = Literal["train", "test", "val"]

_USUAL: dict[Role, str] = {
    "train": "train|training|trn|trainval",
    "test": "test|testing|tst",
    "val": "val|valid|validation|validate|dev|eval|evaluation",
}
_MORE = r"([ _-]?(set|data|split|images|imgs|\d{4}))?"
_ROLES: dict[Role, re.Pattern[str]] = {
    role: re.compile(f"({names}){_MORE}", re.IGNORECASE) for role, names in _USUAL.items()
}
_WORD = re.compile(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]")
_NEUTRAL = frozenset((
    "ds", "set", "data", "dataset", "split", "part", "subset", "folder", "dir", "image", "images",
    "img", "imgs", "picture", "pictures", "pics", "photos", "samples", "#",
))  # fmt: skip
"""Words that say nothing of a class; a number is ``#``."""


class Name(NamedTuple):
    """What a folder's name says: its split, and the words beside it in their order."""

    role: Role
    words: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """The words beside the split that may tell a class or a set of data."""
        return " ".join(word for word in self.words if word not in _NEUTRAL)


def role_of(folder: str) -> Role | None:
    """Return the split that a folder of this name holds; None if it is no name of a split."""
    return next((role for role, usual in _ROLES.items() if usual.fullmatch(folder)), None)


def is_neutral(folder: str) -> bool:
    """Return whether a name is but ``images`` or the like; a number may be a class."""
    words = _words(folder)
    return bool(words) and all(word in _NEUTRAL and word != "#" for word in words)


def _words(folder: str) -> list[str]:
    words = _WORD.findall(folder)
    return ["#" if word.isdigit() else word.casefold() for word in words]


def read_name(folder: str) -> Name | None:
    """Return what a name says that has the word of one split among others."""
    words = _words(folder)
    for roles in (("train", "test"), ("val",)):
        places = [place for place, word in enumerate(words) if role_of(word) in roles]
        if len(places) == 1:
            role = role_of(words[places[0]])
            assert role
            return Name(role, (*words[: places[0]], "*", *words[places[0] + 1 :]))
        if places:
            return None
    return None


def plain_splits(folders: Sequence[str]) -> dict[str, Role]:
    """Return those of ``folders`` whose names say but splits; with more words, those of a pair."""
    usual = {folder: role for folder in folders if (role := role_of(folder))}
    named = {folder: name for folder in folders if (name := read_name(folder))}
    plain = {folder: name.role for folder, name in named.items() if name.pattern == "*"} | usual
    return plain if _is_pair(plain) and not _is_pair(usual) else usual


def splits_among(folders: Sequence[str], root: Path) -> dict[str, Role]:
    """Return those of ``folders`` that hold splits though their names say more; none if none does.

    Raises:
        UserError: They seem to, but not plainly.
    """
    named = {folder: name for folder in folders if (name := read_name(folder))}
    alike: dict[str, dict[str, Role]] = defaultdict(dict)
    for folder, name in named.items():
        alike[name.pattern][folder] = name.role
    pairs = [roles for roles in alike.values() if _is_pair(roles)]
    if not pairs:
        _refuse_lone_role(folders, named, root)
        return {}
    if len(pairs) > 1 or _has_domains(alike):
        raise UserError(
            f"{root} holds {some(sorted(named), 6)}: splits of several sets or domains; put the "
            "one for training and the one for testing of one of them into a folder of their own, "
            "as train/ and test/, and give that"
        )
    (splits,) = pairs
    shapes = [_shape(named[folder].words) for folder in splits]
    if others := [name for name in folders if name not in splits and not _fits(name, shapes)]:
        raise UserError(
            f"{root} holds {some(sorted(splits))}, which seem to be splits, beside {some(others)}; "
            "move the ones or the others away; if all are classes, give them other names"
        )
    return splits


def _is_pair(roles: dict[str, Role]) -> bool:
    return "train" in roles.values() and len(set(roles.values())) > 1


def _has_domains(alike: dict[str, dict[str, Role]]) -> bool:
    """Return whether names differ in a single letter beside their split, as of two domains."""
    return sum(len(pattern) == len("* a") and "*" in pattern for pattern in alike) > 1


def _refuse_lone_role(folders: Sequence[str], named: dict[str, Name], root: Path) -> None:
    """Raise where all folders are for the same, of one set or of domains: none is a class."""
    patterns = {name.pattern for name in named.values()}
    letters = all(len(pattern) <= len("* a") for pattern in patterns)
    if len(folders) > 1 and len(named) == len(folders) and (len(patterns) == 1 or letters):
        raise UserError(
            f"{root} holds {some(sorted(named))}, which all seem to be parts of splits, but not "
            "one for training beside one for testing; name them train/ and test/ (or val/); if "
            "they are classes, give them other names"
        )


def _shape(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(" ".join(r"\S+" if word == "*" else re.escape(word) for word in words))


def _fits(folder: str, shapes: Sequence[re.Pattern[str]]) -> bool:
    """Return whether a name has another word where those of splits have theirs: ``seg_pred``."""
    words = " ".join(_words(folder))
    return any(shape.fullmatch(words) for shape in shapes)
