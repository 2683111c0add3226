"""Whatever a file of a run, study, tuning, report or store becomes, no figure changes unseen.

One trial again: ``ATTACK=217 pytest -m slow -n 0 tests/attacks -k damage``; of all trials one in
eight is made, and with ``ATTACK=all`` each.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import subjects
from crash import CACHE, Ended, Trouble, cli
from subjects import RUN, THIN, Trials, differences, facts, ran, renewed

pytestmark = pytest.mark.slow

Out = pytest.CaptureFixture[str]
TRIALS = 400 // THIN
STUDY, TUNED, PAGE = "the-runs/small", "the-runs/tuned", "reports/quick/data/report.json"
HTML = b"<!DOCTYPE html>\n<html><body><h1>403 Forbidden</h1></body></html>\n"
SHAPES: tuple[Any, ...] = (None, [], {}, 0, -1.5, "", "x", True, [[1]], {"a": None}, 10**400)
DEEP, LONG = "[" * 100_000 + "]" * 100_000, "9" * 5000


class Verb(NamedTuple):
    """A command that reads, and what its figures are: from what it printed and left."""

    command: tuple[str, ...]
    figures: Callable[[Ended, Path], Any]


class World(NamedTuple):
    """A folder, the files in it that are damaged, by pattern, and the verbs that read them."""

    folder: Path
    files: dict[str, tuple[str, ...]]
    verbs: dict[str, Verb]


def printed(ended: Ended, here: Path) -> Any:
    return ended.stdout


def left(*below: str) -> Callable[[Ended, Path], Any]:
    """Return what says what there is below these folders."""

    def of(ended: Ended, here: Path) -> Any:
        return {path: content for path, content in facts(here).items() if path.startswith(below)}

    return of


def drawn(ended: Ended, here: Path) -> Any:
    return (here / "drawn.png").read_bytes()


def both(ended: Ended, here: Path) -> Any:
    return {"stdout": ended.stdout, **left(STUDY)(ended, here)}


def planned(ended: Ended, here: Path) -> Any:
    """Return a plan's figures; that a cell is shown as damaged, and will run, is none of them."""
    plan = json.loads(ended.stdout)
    return [cell["id"] for cell in plan["cells"]], plan["differences"], plan["question"]


LIST = Verb(("list", "--runs", "the-runs", "--json"), printed)
CELL = "sagan-s0"
READING = {
    "study": {
        "list": LIST,
        "show": Verb(("show", CELL, "--runs", STUDY, "--json"), printed),
        "compare": Verb(("compare", STUDY, "--json"), printed),
        "dry run": Verb((*subjects.ABLATE, "--dry-run", "--json"), planned),
        "sample": Verb(("sample", CELL, "--runs", STUDY, "--n", "8", "--out", "drawn.png"), drawn),
        "export": Verb(("export", CELL, "--runs", STUDY, "--out", "out"), left("out")),
        "evaluate": Verb(("evaluate", CELL, "--runs", STUDY, "--json"), left(STUDY)),
        "report": Verb(("report", STUDY), left("reports")),
        "ablate": Verb((*subjects.ABLATE, "--json"), both),
    },
    "run": {
        "list": LIST,
        "show": Verb(("show", RUN, "--json"), printed),
        "train": Verb(subjects.TRAIN, left(RUN)),
    },
    "tuning": {
        "list": LIST,
        "tune show": Verb(("tune", "show", TUNED, "--json"), printed),
        "tune best": Verb(("tune", "best", TUNED, "--as-config"), printed),
        "report": Verb(("report", TUNED), left("reports")),
        "tune": Verb((*subjects.TUNE, "--json"), left(TUNED)),
    },
    "report": {
        "report again": Verb(("report", PAGE), left("reports/quick")),
        "report": Verb(("report", "the-runs/quick"), left("reports/quick", "reports/index")),
    },
    "store": {
        "data list": Verb(("data", "list", "--json"), printed),
        "train": Verb(subjects.TRAIN, left(RUN)),
    },
}
ALL = ()
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "study": {
        "record.json": ALL,
        "config.json": ("show", "evaluate", "ablate"),
        "metrics.jsonl": ("compare", "report", "ablate"),
        "diagnostics.jsonl": ("report", "ablate"),
        "*.npz": ("report",),
        "step-*.png": ("report",),
        "weights.pt": ("sample", "export", "evaluate", "ablate"),
        "study.json": ("list", "compare", "dry run", "report", "ablate"),
    },
    "run": dict.fromkeys(
        ("record.json", "config.json", "metrics.jsonl", "diagnostics.jsonl", "*.ckpt"), ALL
    ),
    "tuning": {
        "tuning.json": ALL,
        "optuna.journal.log": ALL,
        "record.json": ALL,
        "best-*.toml": ("tune best", "tune"),
    },
    "report": dict.fromkeys(
        ("quick/data/report.json", "other/data/report.json", "quick/data/*.csv",
         "quick/data/*.png"), ALL
    ),
    "store": dict.fromkeys(
        ("manifest.json", "train.images.npy", "train.labels.npy", "features/*.npz"), ALL
    ),
}  # fmt: skip
"""The files that are damaged, and which verbs read them."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    made = tmp_path_factory.mktemp("damaged")
    with subjects.made_quick():
        begun = subjects.files(made / "begun")
        verbs = (verb.command for name in ("study", "tuning") for verb in READING[name].values())
        commands = (subjects.TRAIN, subjects.ABLATE, subjects.TUNE, *verbs)
        subjects.warm(renewed(begun, made / "warm"), *commands)
        subjects.frozen()
        places = {"study": ran(renewed(begun, made / "study"), subjects.TRAIN, subjects.ABLATE)}
        shutil.rmtree(places["study"] / RUN)
        places["tuning"] = ran(renewed(begun, made / "tuning"), subjects.TUNE)
        places["report"] = subjects.studies(made / "report")
        ran(places["report"], ("report", "the-runs/quick"), ("report", "the-runs/other"))
        trained = ran(renewed(begun, made / "store"), subjects.TRAIN)
        places["store"] = subjects.without_runs(trained, features=False)
        places["run"] = interrupted(renewed(places["store"], made / "run"))
        yield {name: world(name, folder) for name, folder in places.items()}


def interrupted(folder: Path) -> Path:
    """Leave a run that was killed after its first checkpoint, with all files that a run has."""
    seen = cli(*subjects.TRAIN, cwd=renewed(folder, folder.with_name("counted")), trouble=Trouble())
    last = next(i for i, op in enumerate(seen.operations) if "step-00000004.ckpt" in op)
    assert cli(*subjects.TRAIN, cwd=folder, trouble=Trouble(last)).code == -9
    return folder


def world(name: str, folder: Path) -> World:
    root = folder / (CACHE if name == "store" else "reports" if name == "report" else "the-runs")
    files = {}
    for pattern in FILES[name]:
        found = sorted(root.rglob(pattern))
        assert found, pattern
        files[pattern] = tuple(str(path.relative_to(folder)) for path in found)
    return World(folder, files, READING[name])


# --- Damage ------------------------------------------------------------------------------------


def damaged(data: bytes, sibling: bytes, how: str, draw: random.Random) -> bytes:
    """Return what a file becomes."""
    at = draw.randrange(len(data)) if data else 0
    shape = json.dumps(draw.choice(SHAPES))
    changed: dict[str, Callable[[], bytes]] = {
        "cut": lambda: data[:at],
        "empty": bytes,
        "bit": lambda: data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
        "byte": lambda: data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
        "nulls": lambda: data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :],
        "html": lambda: HTML,
        "swapped": lambda: sibling,
        "other": shape.encode,
        "shape": lambda: reshaped(data, shape, draw),
        "deep": lambda: reshaped(data, DEEP, draw),
        "long": lambda: reshaped(data, LONG, draw),
    }
    return changed[how]()


DAMAGES = (
    "cut", "empty", "bit", "byte", "nulls", "html", "swapped", "shape", "shape", "other", "deep",
    "long",
)  # fmt: skip

SOUND = ("bit", "shape", "swapped")
"""Damages after which a file may be one that could have been written."""


def reshaped(data: bytes, value: str, draw: random.Random) -> bytes:
    """Return JSON, or lines of it, with one value at any depth replaced; of other data, all."""
    lines = data.splitlines()
    number = draw.randrange(len(lines)) if lines else 0
    for first, last in ((0, len(lines)), (number, number + 1)):
        try:
            tree = json.loads(b"\n".join(lines[first:last]))
        except ValueError:
            continue
        text = json.dumps(_marked(tree, draw)).replace('"@@"', value).encode()
        return b"\n".join([*lines[:first], text, *lines[last:]]) + b"\n"
    return value.encode()


def _marked(tree: Any, draw: random.Random) -> Any:
    """Return a tree of which one value is ``@@``."""
    if not isinstance(tree, dict | list) or not tree:
        return "@@"
    keys: Any = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = draw.choice(keys)
    inner = _marked(tree[key], draw) if draw.random() < 0.7 else "@@"
    if isinstance(tree, dict):
        return tree | {key: inner}
    return [*tree[:key], inner, *tree[key + 1 :]]


class Damage(NamedTuple):
    """One trial: what is done to which file."""

    world: str
    file: str
    how: str
    sibling: str
    seed: int

    def to(self, folder: Path, here: Path) -> Path:
        """Put the damaged folder in its place."""
        renewed(folder, here)
        (here / self.file).write_bytes(self.content(folder))
        return here

    def content(self, folder: Path) -> bytes:
        file, sibling = ((folder / path).read_bytes() for path in (self.file, self.sibling))
        return damaged(file, sibling, self.how, random.Random(self.seed))

    def __str__(self) -> str:
        return f"{self.seed}: {self.file} {self.how}"


def damages(worlds: dict[str, World]) -> Iterator[tuple[Damage, list[str]]]:
    """Yield the trials: every kind of file by every damage in turn, then again with other draws.

    With each come the verbs that read the file.
    """
    kinds = [(name, pattern) for name in FILES for pattern in FILES[name]]
    for seed in range(TRIALS):
        name, pattern = kinds[seed % len(kinds)]
        how = DAMAGES[(seed + seed // len(kinds)) % len(DAMAGES)]
        there = worlds[name].files[pattern]
        draw = random.Random(seed)
        file = draw.choice([one for one in there if "no-attention" not in one])
        others = [one for one in there if one != file] or [
            files[0] for other, files in worlds[name].files.items() if other != pattern
        ]
        damage = Damage(name, file, how, draw.choice(others), seed)
        yield damage, [*(FILES[name][pattern] or READING[name])]


SILENT = "changed without a word"


@pytest.mark.parametrize("part", range(2))
def test_damage(part: int, worlds: dict[str, World], tmp_path: Path, capsys: Out) -> None:
    here = tmp_path / "here"
    sound: dict[tuple[str, str], Any] = {}
    for name, world in worlds.items():
        for verb, how in world.verbs.items():
            ended = cli(*how.command, cwd=renewed(world.folder, here))
            assert ended.code == 0, (name, verb, ended)
            sound[name, verb] = how.figures(ended, here)
    trials = Trials("damaged files")
    for damage, verbs in [*damages(worlds)][part::2]:
        if trials.wants(str(damage.seed)):
            world, told = worlds[damage.world], []
            damage.to(world.folder, here)
            for verb in verbs:
                wrong = read(damage, world, world.verbs[verb], sound[damage.world, verb], here)
                if wrong:
                    told.append(f"{verb}: {wrong}")
                if world.verbs[verb].figures not in (printed, planned):  # it writes
                    damage.to(world.folder, here)
            trials.add(str(damage), "; ".join(told))
    trials.end(capsys)


def is_as_damaged(damage: Damage, world: World, here: Path) -> bool:
    """Return whether a verb left the damaged file alone, so that it is none of its figures."""
    file = here / damage.file
    return file.exists() and file.read_bytes() == damage.content(world.folder)


def read(damage: Damage, world: World, verb: Verb, sound: Any, here: Path) -> str | None:
    """Return what is wrong with how a verb reads a damaged folder."""
    ended = cli(*verb.command, cwd=here)
    file = Path(damage.file)
    if ended.code not in (0, 2, 3):
        return str(ended)
    if ended.code == 2:
        # Of two sound files that do not go together nobody can say which is the wrong one.
        names = (file.name, file.parent.name) if damage.how in SOUND else (file.name,)
        is_named = any(name in ended.stderr for name in names)
        return None if is_named else f"{file.name} is not named: {ended}"
    if any(name in ended.stderr for name in (file.name, file.parent.name)):
        return None
    figures = verb.figures(ended, here)
    if isinstance(figures, dict) and is_as_damaged(damage, world, here):
        figures, sound = (
            {k: v for k, v in of.items() if k != damage.file} for of in (figures, sound)
        )
    if figures == sound:
        return None
    what = differences(figures, sound) if isinstance(figures, dict) else "what it shows"
    return f"{SILENT}, exit {ended.code}: {what}"
