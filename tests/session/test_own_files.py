"""Runs with components from a file of one's own: what they are called, keep, and need later."""

import json
import re
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
    assert "--with run/own/mine.py --set" in shown
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
            f"line {BLOCK.read_text().split('groups: int = 2')[0].count(chr(10)) + 1}: NameError",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_the_users_mistake(capsys: Out, text: str, words: str) -> None:
    Path("mine.py").write_text(text)
    assert train() == cli.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sagan", "no-attention", "wider-x2", "none", "own", "a-like-b"])
def test_a_block_of_a_name_that_is_taken_is_refused(capsys: Out, name: str) -> None:
    text = BLOCK.read_text().replace('register("mean-context")', f'register("{name}")')
    Path("mine.py").write_text(text)
    for verb in (["train", "--with", "mine.py", *SETS], ["check", "mine.py"]):
        assert run(*verb) == cli.USAGE
        assert f"mine.py: {name!r} is the name of a variant" in capsys.readouterr().err


def test_two_files_of_a_name_are_refused(capsys: Out) -> None:
    Path("other").mkdir()
    shutil.copy("mine.py", "other/mine.py")
    assert run("train", "--with", "mine.py", "--with", "other/mine.py", *SETS) == cli.USAGE
    said = capsys.readouterr().err
    assert "two files are called mine: mine.py and other/mine.py; rename one" in said


def test_an_error_in_training_names_the_line_of_the_file(capsys: Out) -> None:
    text = BLOCK.read_text()
    place = text.index("    def branch")
    end = text.index('"""\n', text.index('"""', place) + 3) + 4
    late = "        if self.training and torch.is_grad_enabled() and x.device.type == 'cpu':\n"
    late += "            raise RuntimeError('late trouble')\n"
    Path("mine.py").write_text("import torch\n" + text[:end] + late + text[end:])
    assert train() == cli.USAGE
    said = capsys.readouterr().err
    assert re.search(r"mine\.py, line \d+: RuntimeError: late trouble", said), said
    assert re.search(r"mine\.py, line \d+: RuntimeError", record()["reason"])
    assert "internal" not in said


def test_a_copy_that_was_changed_is_told_from_one_that_is_gone(capsys: Out) -> None:
    assert train() == 0
    copy = Path("run/own/mine.py")
    whole = copy.read_bytes()
    for change, words in ((lambda: copy.write_bytes(whole + b"# x\n"), "is another"),
                          (copy.unlink, "is not there")):  # fmt: skip
        change()
        _forget()
        capsys.readouterr()
        assert run("evaluate", "run") == cli.USAGE
        said = capsys.readouterr().err
        assert f"own/mine.py {words}; restore" in said, said
    _forget()


def test_the_command_that_repeats_a_run_names_its_copy(capsys: Out) -> None:
    assert train() == 0
    _forget()
    capsys.readouterr()
    assert run("show", "run") == 0
    assert "--with run/own/mine.py" in capsys.readouterr().out


def test_a_preset_of_a_file_may_name_a_block_of_another(capsys: Out) -> None:
    Path("mine.toml").write_text('[a]\nextends = "quick"\nmodel.attention.kind = "mean-context"\n')
    given = ["--with", "mine.py", "--preset-file", "mine.toml"]
    assert run("ablate", "quick", *given, "--dry-run") == 0, capsys.readouterr().err
