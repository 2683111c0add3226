"""The engines by name: those that are shipped, and one of a user."""

from pathlib import Path

import pytest
from command_line import run
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.core.registry import ENGINES

Out = pytest.CaptureFixture[str]


def ablate(folder: Path, *more: str) -> int:
    (folder / "small.toml").write_text(FILE)
    sets = [part for text in SMALL for part in ("--set", text)]
    return run("ablate", str(folder / "small.toml"), *sets, "--seeds", "0", *more)


def test_an_unknown_engine_is_refused_with_the_closest(tmp_path: Path, capsys: Out) -> None:
    assert ablate(tmp_path, "--engine", "proceses") == cli.USAGE
    assert "--engine proceses: did you mean 'processes'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_shipped_engines_are_known_without_any_being_read() -> None:
    assert {"inline", "processes"} <= set(ENGINES)
    assert {ENGINES[name].name for name in ("inline", "processes")} == {"inline", "processes"}
