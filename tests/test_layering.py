"""One way: a module imports only what stands before it."""

import ast
from pathlib import Path

import pytest

import sagan_bench

ROOT = Path(sagan_bench.__file__).parent
ORDER = [
    "errors", "files", "stored", "locks", "cpu", "config", "records", "run_directory", "table",
    "statistics", "host", "precision", "parallel", "data", "models", "evaluation", "study",
    "outcomes", "comparison", "training", "cell", "follower", "experiment", "drawing", "exporting",
    "engine", "ablation", "tuning", "report", "cli",
]  # fmt: skip
UPWARDS = {("host", "evaluation")}
"""`host.host` asks, inside a function, which extractor's weights are at hand."""
MODULES = sorted(ROOT.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "sagan_bench" and rest:
                rooms.add(rest.partition(".")[0])
    return rooms & set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not _imported(path)
        return
    assert room in ORDER, f"{room} has no place in the order"
    for imported in _imported(path):
        before = ORDER.index(imported) <= ORDER.index(room)
        assert before or (room, imported) in UPWARDS, f"{room} imports {imported}"


def test_training_never_imports_evaluation() -> None:
    for path in (ROOT / "training").glob("*.py"):
        assert "evaluation" not in _imported(path), path
