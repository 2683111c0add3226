"""What a shell completes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from example_reports import leave_study

from sagan_bench.cli import completing
from sagan_bench.cli.prune import prune
from sagan_bench.cli.train import train


def test_names_that_begin_so_are_completed() -> None:
    assert completing.variant("no-att") == ["no-attention"]
    assert "no-attention+wgan-gp" in completing.combined("no-attention+wg")
    assert set(completing.preset("twins")) == {"twins32", "twins64"}
    assert "presence" in completing.study("pre")
    assert completing.space("twins") == ["twins32"]
    assert completing.variant("nothing-begins-so") == []


def test_runs_and_studies_are_those_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert completing.place("") == completing.run("") == []
    leave_study(tmp_path / "runs" / "mine", pictures=False)
    assert completing.place("mi") == ["mine"]
    assert len(completing.run("sagan-s")) == 5
    assert completing.shown("mo") == ["model"]
    (tmp_path / "runs" / "mine" / "study.json").write_text("{")
    assert completing.place("mi") == ["mine"]


def test_what_fails_completes_nothing() -> None:
    def broken() -> list[str]:
        raise RuntimeError

    assert completing._from(broken)("a") == []


def test_a_shell_is_answered() -> None:
    """As a shell asks: by environment variables."""
    asked = {
        "_CLI_COMPLETE": "complete_bash", "COMP_WORDS": "cli.py train --variant no-att",
        "COMP_CWORD": "3",
    }  # fmt: skip
    root = Path(__file__).parents[2]
    code = (
        "import sys; sys.argv = ['cli']; from sagan_bench.cli import app; "
        "app(prog_name='cli', complete_var='_CLI_COMPLETE')"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True,
        cwd=root, check=False,
    )  # fmt: skip
    assert told.stdout.split() == ["no-attention"], told.stderr


def test_what_is_pruned_or_begun_with_is_completed() -> None:
    assert get_args(prune.__annotations__["places"])[1].autocompletion is completing.place
    assert get_args(train.__annotations__["init_from"])[1].autocompletion is completing.run
