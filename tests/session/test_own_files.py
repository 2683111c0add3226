"""Runs with components from a file of one's own: what they are called, keep, and need later."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.core import extensions
from sagan_bench.core.registry import ATTENTION
from sagan_bench.experiments import conformance

BLOCK = Path(__file__).parents[1] / "own" / "mean_context.py"
ROOT = Path(cli.__file__).parents[2]
MINE = ["--set", "model.attention.kind=mean-context", "--set", "model.attention.options.groups=4"]
SETS = [part for text in SMALL for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nothing_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conformance, "require", lambda extension: None)
    shutil.copy(BLOCK, "mine.py")
    yield
    _forget()


def _forget() -> None:
    extensions.forget("mine")
    ATTENTION._recalled.clear()


def train(*more: str) -> int:
    return run("train", "--with", "mine.py", *MINE, *SETS, "--out", "run", *more)


def record(path: str = "run") -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(Path(path, "record.json").read_text())
    return stored


def test_a_run_keeps_the_file_its_hash_and_its_facts(capsys: Out) -> None:
    assert train() == 0
    own = record()["config"]["own"]
    described = own["mine"]
    assert described["sha256"] == extensions.load(Path("mine.py")).sha256
    assert described["components"]["ATTENTION/mean-context"]["title"] == "mean context"
    assert Path("run/own/mine.py").read_bytes() == Path("mine.py").read_bytes()
    assert record()["variant"] == "mean-context"

    _forget()  # as another process: nobody's code is run to read it
    for verb in (["list", "--runs", "."], ["show", "run"], ["compare", "run", "--baseline", "run"]):
        assert run(*verb) == 0
    shown = capsys.readouterr().out
    assert "--with mine.py --set" in shown
    assert "own." not in shown
    assert "mine" not in extensions._known
    assert ATTENTION["mean-context"].title == "mean context"

    assert run("sample", "run", "--n", "2") == 0  # by the copy
    assert extensions._known["mine"].file == Path("run/own/mine.py")
    _forget()
    assert run("evaluate", "run", "--n-fake", "9") == 0


def test_without_its_code_a_run_is_not_gone_on_with(capsys: Out) -> None:
    assert train() == 0
    shutil.rmtree("run/own")
    _forget()
    assert run("sample", "run", "--n", "2") == cli.USAGE
    assert "what mine.py registers is needed" in capsys.readouterr().err
    Path("mine.py").write_text(BLOCK.read_text() + "# changed\n")
    extensions.load(Path("mine.py"))
    assert run("sample", "run", "--n", "2") == cli.USAGE
    assert "another source is another run" in capsys.readouterr().err


def test_another_source_is_another_run(capsys: Out) -> None:
    assert train() == 0
    assert train() == 0  # the same again does nothing
    Path("mine.py").write_text(BLOCK.read_text() + "# changed\n")
    assert train() == cli.USAGE
    assert "own.mine.sha256" in capsys.readouterr().err


def test_runs_without_it_are_as_before(capsys: Out) -> None:
    """A file that a configuration does not use enters neither its digest nor its record."""
    plain = ["train", *SETS, "--dry-run", "--json"]
    assert run(*plain) == 0
    without = json.loads(capsys.readouterr().out)
    assert run(*plain, "--with", "mine.py") == 0
    assert json.loads(capsys.readouterr().out) == without


@pytest.mark.slow
def test_workers_know_it_and_what_is_wrong_in_it_is_told(tmp_path: Path, capsys: Out) -> None:
    study = (
        'question = "?"\nbaseline = "no-attention"\nvariants = ["mean-context"]\nseeds = [0]\n'
        '[on.twins]\nmetric = "twin_rate"\nmin_effect = 0.05\n'
    )
    Path("study.toml").write_text(study)
    command = ["ablate", "study.toml", "--with", "mine.py", *SETS, "--jobs", "1"]
    assert run(*command) == 0
    (path,) = Path("runs/study").glob("mean-context-s0-*")
    assert record(str(path))["status"] == "finished"
    assert (path / "own" / "mine.py").exists()
    _forget()
    seen = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "compare", "runs/study"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert seen.returncode == 0, seen.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1 +\n", "mine.py, line 1: SyntaxError"),
        (
            BLOCK.read_text().replace("groups: int = 2", "groups: int = nosuch"),
            "line 34: NameError",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_the_users_mistake(capsys: Out, text: str, words: str) -> None:
    Path("mine.py").write_text(text)
    assert train() == cli.USAGE
    assert words in capsys.readouterr().err
