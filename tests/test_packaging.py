"""What is shipped: a wheel that works outside the tree, and a README that is true."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagan_bench import cli
from sagan_bench.cli import errands, signals
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.data import building, download
from sagan_bench.experiments import ablation, conformance
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped

ROOT = Path(cli.__file__).parents[2]
README = (ROOT / "README.md").read_text()


PLACEHOLDERS = ("RUN", "PATH", "A", "B", "DIR")
"""Words of the README that stand for a reader's own run or folder."""


def readme_commands() -> list[str]:
    """Return every command line of this program that the README shows."""
    found = re.findall(r"`python cli\.py ([^`]+)`", README)
    found += re.findall(r"python cli\.py ((?:\S+ )*\S+)\s+#", README)
    return [command for command in found if not command.startswith("VERB")]


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_of_the_readme_is_understood(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def started(*args: Any, **given: Any) -> None:
        raise Stopped("interrupted", None)

    def begun(*args: Any, **given: Any) -> None:
        raise UserError("begun")

    if "--with" in command:  # a file of the reader's own, which `init` begins
        shutil.copy(ROOT / "sagan_bench/cli/templates/block.py", tmp_path / "my_block.py")
        monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conformance, "require", lambda extension: None)
    monkeypatch.setattr(experiment, "run", started)
    monkeypatch.setattr(building, "prepare", begun)
    monkeypatch.setattr(download, "download", begun)
    monkeypatch.setattr(ablation, "with_data", begun)
    monkeypatch.setattr(errands, "host_of", begun)
    with pytest.raises(SystemExit) as exit_:
        cli.main(shlex.split(command))
    extensions.forget("my_block")
    error = capsys.readouterr().err
    error = error.removeprefix("checking my_block.py\n")
    if exit_.value.code == cli.USAGE:
        missing = re.match(r"error: (?:no run is at|there is no folder) (\w+)[,;]", error)
        nothing_yet = "no study is in runs" in error or "cannot read report.json" in error
        named = missing is not None and missing[1] in PLACEHOLDERS
        assert error == "error: begun\n" or nothing_yet or named, error
    else:
        assert exit_.value.code in (0, signals.INTERRUPTED), error


def test_the_readme_begins_with_the_one_command() -> None:
    first_screen = README.splitlines()[:12]
    assert any("pip install -e . && python cli.py train --variant sagan" in x for x in first_screen)
    assert "`pip install -e '.[dev]' && pytest`" in README


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_a_wheel_works_outside_the_tree(tmp_path: Path) -> None:
    built, site = tmp_path / "built", tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = built.iterdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(site / "bin" / "sagan-bench"), "show", "config", "--json"],
        env={"PYTHONPATH": str(site), "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert '"variant": "sagan"' in done.stdout
    assert (site / "sagan_bench" / "ablations" / "variants.toml").exists()
    assert (site / "sagan_bench" / "ablations" / "spaces" / "quick.toml").exists()
    assert (site / "sagan_bench" / "py.typed").exists()
    assert (site / "sagan_bench" / "report" / "templates" / "page.html").exists()
