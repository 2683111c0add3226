"""Write anew what the golden tests hold: ``python tests/golden/renew.py [PART...]``.

Doing so is a decision: what a user sees, or what a run computes, is another from then on.  Look at
``git diff tests/golden``, and say in the message of the commit, and in the changelog, what changed
and why.  The parts are digests, plans, runs, studies, tunings, begun, shipped and shapes; all by
default.  The folders in begun/ are never written anew: older code made them (begin.py); the part
begun is what is said of them now.
"""

import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import begin
import doors
import goldens
import observed


def _digests() -> None:
    goldens.store("digests.json", observed.digests())


def _plans() -> None:
    goldens.store("expected/plans.json", observed.plans())


def _runs() -> None:
    goldens.store("runs.json", {name: observed.run(name) for name in observed.RECIPES})


def _folders(kind: str, names: dict[str, object], see: Callable[[str], dict[str, object]]) -> None:
    for name in names:
        with tempfile.TemporaryDirectory() as folder, doors.plain_machine(Path(folder)):
            for file, content in see(name).items():
                goldens.store(f"expected/{kind}/{name}/{file}", content)


def _begun() -> None:
    for code in observed.CODES:
        for part in begin.COMMANDS:
            with tempfile.TemporaryDirectory() as folder, doors.plain_machine(Path(folder)):
                for verb, text in observed.read(part, code).items():
                    goldens.store(f"expected/begun/{part}-{code}/{verb}.txt", text)
    for schema in (1, 2):
        with tempfile.TemporaryDirectory() as folder, doors.plain_machine(Path(folder)):
            goldens.store(f"expected/begun/report-schema-{schema}.txt", observed.rendered(schema))


def _shipped() -> None:
    for name, see in observed.SHIPPED.items():
        goldens.store(f"expected/{name}.json", see())


PARTS: dict[str, Callable[[], None]] = {
    "digests": _digests,
    "plans": _plans,
    "runs": _runs,
    "studies": lambda: _folders("studies", {**observed.STUDIES}, observed.study),
    "tunings": lambda: _folders("tunings", {**observed.TUNINGS}, observed.tuning),
    "begun": _begun,
    "shipped": _shipped,
    "shapes": lambda: goldens.store("expected/json_shapes.json", observed.shapes()),
}


def main(parts: list[str]) -> None:
    """Renew these parts, each in an empty folder."""
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    gc.freeze()
    for part in parts or PARTS:
        with tempfile.TemporaryDirectory() as folder, doors.plain_machine(Path(folder)):
            PARTS[part]()
        print(f"renewed {part}")
    gc.unfreeze()


if __name__ == "__main__":
    main(sys.argv[1:])
