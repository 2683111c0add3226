"""Installed packages with components: known without an option, and imported by who needs them."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import forget
from command_line import run as main
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.core import extensions, packages, registry

Out = pytest.CaptureFixture[str]
ROOT = Path(cli.__file__).parents[2]
BLOCK = (Path(__file__).parents[1] / "own" / "mean_context.py").read_text()
SETS = [part for text in SMALL for part in ("--set", text)]
STUDY = """
question = "?"
baseline = "no-attention"
variants = ["mean-context"]
seeds = [0]
set.block.groups = 4
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""


def install(module: str = "tiny_blocks.mean", *, package: str = "tiny-blocks") -> None:
    """Put a distribution on the path whose entry point is a module."""
    about = Path("site", f"{package.replace('-', '_')}-1.0.dist-info")
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[sagan_bench]\nblocks = {module}\n")


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()
    Path("site/tiny_blocks").mkdir()
    Path("site/tiny_blocks/__init__.py").write_text("from tiny_blocks.mean import MeanContext\n")
    Path("site/tiny_blocks/sizes.py").write_text("USUAL = 2\n")
    text = BLOCK.replace("groups: int = 2", "groups: int = USUAL")
    text = text.replace("from torch import", "from .sizes import USUAL\nfrom torch import")
    Path("site/tiny_blocks/mean.py").write_text(text)


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path("site").resolve()), os.environ.get("PYTHONPATH", "")])
    seen = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments], capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert seen.returncode == code, seen.stdout + seen.stderr
    return seen


def record(path: Path | str = "run") -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(Path(path, "record.json").read_text())
    return stored


def unread() -> None:
    """Know nothing of installed packages, as another process."""
    forget()
    packages.modules.cache_clear()
    registry.UNREAD.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tiny_blocks"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is installed for this process, and for those that it starts."""
    site = str(Path("site").resolve())
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]))
    unread()
    yield
    unread()


TRAIN = ("train", "--variant", "mean-context", *SETS, "--out", "run")


def test_it_is_known_without_an_option(here: None, capsys: Out) -> None:
    assert main("train", "--dry-run", *SETS, "--json") == 0
    plain = json.loads(capsys.readouterr().out)["digest"]
    assert main("show", "config", "--variant", "mean-context", "--json") == 0
    config = json.loads(capsys.readouterr().out)["config"]
    content = Path("site/tiny_blocks/mean.py").read_bytes()
    assert config["own"]["tiny_blocks_mean"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert config["own"]["tiny_blocks_mean"]["module"] == "tiny_blocks.mean"
    assert main("show", "config", "--json") == 0
    assert "own" not in json.loads(capsys.readouterr().out)["config"]
    extensions.forget("tiny_blocks_mean")
    packages.modules.cache_clear()
    assert main("train", "--dry-run", *SETS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == plain


def test_two_modules_of_a_package_are_each_known_by_its_own_file(here: None) -> None:
    text = Path("site/tiny_blocks/mean.py").read_text()
    Path("site/tiny_blocks/other.py").write_text(text.replace('"mean-context"', '"other"'))
    Path("site/tiny_blocks/__init__.py").write_text("from tiny_blocks import mean, other\n")
    install("tiny_blocks")
    extensions.load_installed()
    of = {name: extension.components for name, extension in extensions._known.items()}
    assert of == {
        "tiny_blocks_mean": (("ATTENTION", "mean-context"),),
        "tiny_blocks_other": (("ATTENTION", "other"),),
    }


@pytest.mark.slow
def test_runs_of_it_keep_what_they_need(here: None, capsys: Out) -> None:
    """Each command knows nothing of the one before; two are in processes of their own."""

    def said(*arguments: str, code: int = 0) -> str:
        unread()
        ended = main(*arguments)
        captured = capsys.readouterr()
        assert ended == code, captured
        return captured.err if code else captured.out

    said("check", "attention:mean-context", "--json")
    assert "mean context8" in said("show", "model", "--variant", "mean-context")
    run(*TRAIN)
    own = record()["config"]["own"]
    assert own["tiny_blocks_mean"]["module"] == "tiny_blocks.mean"
    assert Path("run/own/tiny_blocks_mean.py").read_bytes() == (
        Path("site/tiny_blocks/mean.py").read_bytes()
    )
    again = " ".join(said("show", "run").split())
    assert "--variant mean-context" in again
    assert "--with" not in again
    steps = [text.replace("run.steps=6", "run.steps=8") for text in TRAIN]
    said(*steps)  # the same run, trained further
    assert record()["step"] == 8
    said("sample", "run", "--n", "2")

    changed = Path("site/tiny_blocks/mean.py")
    changed.write_text(changed.read_text() + "# changed\n")
    assert "own.tiny_blocks_mean.sha256" in said(*TRAIN, code=cli.USAGE)
    said("sample", "run", "--n", "2")  # by the copy, with the package's other modules
    changed.unlink()
    Path("site/tiny_blocks/__init__.py").write_text("")
    run("sample", "run", "--n", "2")
    Path("run/own/tiny_blocks_mean.py").unlink()
    refused = said("sample", "run", "--n", "2", code=cli.USAGE)
    assert "what tiny_blocks.mean registers is needed" in refused
    assert "install its package" in refused
    assert run("list", "--runs", ".").stderr == ""


@pytest.mark.slow
def test_workers_know_it(here: None, capsys: Out) -> None:
    Path("study.toml").write_text(STUDY)
    command = ["ablate", "study.toml", *SETS, "--jobs", "2"]
    assert main(*command) == 0, capsys.readouterr().err
    (path,) = Path("runs/study").glob("mean-context-s0-*")
    assert record(path)["config"]["model"]["attention"]["options"] == {"groups": 4}
    stored = json.loads(Path("runs/study/study.json").read_text())["study"]
    assert set(stored["own"]) == {"tiny_blocks_mean"}
    changed = Path("site/tiny_blocks/mean.py")
    changed.write_text(changed.read_text() + "# changed\n")
    unread()
    assert main(*command) == cli.USAGE
    assert "another study is in" in capsys.readouterr().err
    changed.unlink()
    Path("site/tiny_blocks/__init__.py").write_text("")
    assert run("compare", "runs/study").stderr == ""  # it is read without it


def test_who_does_not_ask_does_not_import_it() -> None:
    Path("site/tiny_blocks/__init__.py").write_text("import sys\nsys.exit('imported')\n")
    for verb in (["--help"], ["list"], ["list", "variants"]):
        assert run(*verb).stderr == ""


@pytest.mark.parametrize("line", ["import nosuch", "raise SystemExit(3)", "x ="])
def test_a_package_that_cannot_be_imported_is_told_to_who_needs_it(
    line: str, here: None, capsys: Out, caplog: pytest.LogCaptureFixture
) -> None:
    Path("site/tiny_blocks/__init__.py").write_text(f"{line}\n")
    assert main("show", "config", "--json") == 0
    assert json.loads(capsys.readouterr().out)["config"]["variant"] == "sagan"
    assert "the installed package tiny-blocks is left out: tiny_blocks.mean: " in caplog.text
    assert main("show", "variant", "mean-context") == cli.USAGE
    refused = capsys.readouterr().err
    assert "no variant is called 'mean-context'" in refused
    assert "the package tiny-blocks could not be imported" in refused


@pytest.mark.parametrize("module", ["tiny_blocks.nosuch", "", "tiny blocks", "tiny_blocks.:x", "."])
def test_what_is_no_module_is_left_out(
    module: str, here: None, caplog: pytest.LogCaptureFixture
) -> None:
    install(module)
    extensions.load_installed()
    assert "tiny-blocks is left out" in caplog.text


def test_a_name_that_is_shipped_is_an_error_that_names_the_package(here: None, capsys: Out) -> None:
    file = Path("site/tiny_blocks/mean.py")
    file.write_text(file.read_text().replace('"mean-context"', '"full"'))
    assert main("show", "config") == cli.USAGE
    refused = capsys.readouterr().err
    assert "the installed package tiny-blocks: " in refused
    assert "there is a attention kind 'full' already" in refused
