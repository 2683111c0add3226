"""A block of one's own: a study by itself, controls that cost what it costs, or one of a study."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_runs import SMALL
from example_studies import FILE, HOST

from sagan_bench import cli
from sagan_bench.config.layers import resolve
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.experiments import conformance
from sagan_bench.experiments.ablation import counted
from sagan_bench.experiments.studies import of_files

BLOCK = Path(__file__).parents[1] / "own" / "mean_context.py"
LINEAR = Path(__file__).parents[1] / "own" / "linear.py"
REPLACING = Path(__file__).parents[1] / "planted" / "odd" / "replacing.py"
ROOT = Path(cli.__file__).parents[2]
SETS = [part for text in SMALL for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nothing_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conformance, "require", lambda extension: None)
    shutil.copy(BLOCK, "mine.py")
    Path("small.toml").write_text(FILE)
    yield
    for name in ("mine", "linear", "replacing"):
        extensions.forget(name)
    ATTENTION._recalled.clear()


def loaded(file: str | Path = "mine.py") -> dict[str, Any]:
    extension = extensions.load(Path(file))
    return {extension.name: extension.described}


def test_alone_it_is_a_study_with_controls_of_its_own_cost() -> None:
    study = of_files(loaded())
    assert (study.name, study.baseline) == ("with-mine", "mean-context")
    assert study.all_variants == (
        "mean-context", "no-attention", "sagan", "residual-like-mean-context",
        "wider-like-mean-context",
    )  # fmt: skip
    assert study.measure.metric == "twin_rate"
    facts = {name: counted(study.requested(name, 0).config) for name in study.all_variants}
    mine, none = facts["mean-context"], facts["no-attention"]
    alike, wide = facts["residual-like-mean-context"], facts["wider-like-mean-context"]
    for network in ("parameters_g", "parameters_d"):
        added = getattr(mine, network) - getattr(none, network)
        assert getattr(alike, network) - getattr(none, network) == pytest.approx(added, rel=0.05)
    assert wide.flops_per_step == pytest.approx(mine.flops_per_step, rel=0.01)
    assert {place.side for place in alike.blocks} == {place.side for place in mine.blocks}


def test_a_block_instead_of_a_layer_has_controls_of_another_width(capsys: Out) -> None:
    shutil.copy(REPLACING, "replacing.py")
    assert run("ablate", "--with", "replacing.py", "--dry-run", "--json") == 0
    assert "sized-like-planted-replacing" in capsys.readouterr().out
    study = of_files(loaded("replacing.py"))
    names = ("planted-replacing", "sized-like-planted-replacing", "wider-like-planted-replacing")
    assert set(names) <= set(study.all_variants)
    mine, sized, wider = (counted(study.requested(name, 0).config) for name in names)
    assert not sized.blocks
    for network in ("parameters_g", "parameters_d"):
        assert getattr(sized, network) == pytest.approx(getattr(mine, network), rel=0.05)
    assert wider.flops_per_step == pytest.approx(mine.flops_per_step, rel=0.02)
    assert wider != sized


def test_controls_are_like_the_block_that_is_named_and_like_sagans_by_default() -> None:
    loaded()
    plain = counted(resolve(HOST, preset="brief", variant="residual").config)
    like_full = counted(
        resolve(
            HOST, preset="brief", variant="residual", sets=["model.attention.options.like=full"]
        ).config
    )
    other = counted(resolve(HOST, preset="brief", variant="residual-like-mean-context").config)
    assert plain == like_full
    assert other.parameters_g < plain.parameters_g


def test_a_run_of_it_is_called_as_it_is(capsys: Out) -> None:
    assert run("train", "--with", "mine.py", "--variant", "mean-context", "--dry-run", *SETS) == 0
    assert "mean-context-s0-" in capsys.readouterr().out
    assert run("train", "--variant", "mean-context", "--dry-run") == 0  # known in this process
    extensions.forget("mine")
    assert run("train", "--variant", "mean-context", "--dry-run") == cli.USAGE
    assert "no variant is called 'mean-context'" in capsys.readouterr().err


@pytest.mark.slow
def test_it_joins_a_study_that_then_needs_no_option(capsys: Out) -> None:
    command = ["ablate", "small.toml", *SETS, "--in-process", "--seeds", "0"]
    assert run(*command, "--with", "mine.py", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    compared = {(c["variant"], c["baseline"]) for c in found["primary"]["comparisons"]}
    assert compared == {("sagan", "no-attention"), ("mean-context", "no-attention")}
    stored = json.loads(Path("runs/small/study.json").read_text())["study"]
    assert stored["own"]["mine"]["sha256"] == extensions.load(Path("mine.py")).sha256
    records = {
        path.parent.name.partition("-s0")[0]: json.loads(path.read_text())["config"].get("own")
        for path in Path("runs/small").glob("*-s0-*/record.json")
    }
    assert records["no-attention"] is records["sagan"] is None
    assert set(records["mean-context"]) == {"mine"}

    read = """
from command_line import run
assert run("compare", "runs/small") == 0
assert run("report", "runs/small", "--out", "page") == 0
"""
    seen = subprocess.run(  # nobody's code is run to read it
        [sys.executable, "-c", read], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip
    assert seen.returncode == 0, seen.stderr
    extensions.forget("mine")
    Path("mine.py").unlink()
    assert run(*command, "--json") == 0  # by the copy in the study's folder
    assert json.loads(capsys.readouterr().out)["runs"] == found["runs"]


def test_another_source_is_another_study(capsys: Out) -> None:
    command = ["ablate", "small.toml", *SETS, "--with", "mine.py", "--in-process", "--seeds", "0"]
    assert run(*command, "--only", "mean-context") == 0
    Path("mine.py").write_text(BLOCK.read_text() + "# changed\n")
    assert run(*command) == cli.USAGE
    assert "another study is in" in capsys.readouterr().err


def test_a_file_without_a_block_is_no_study_by_itself() -> None:
    shutil.copy(LINEAR, "linear.py")
    with pytest.raises(UserError, match="no block, and no family with a contrast: name a study"):
        of_files(loaded("linear.py"))


def test_it_is_checked_before_anything_trains_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    def require(extension: extensions.Extension) -> None:
        raise UserError(f"{extension.file}: block mean-context, check axis: wrong")

    monkeypatch.setattr(conformance, "require", require)
    for verb in (["train", "--variant", "mean-context"], ["ablate", "small.toml"]):
        assert run(*verb, "--with", "mine.py", *SETS) == cli.USAGE
        assert "check axis: wrong" in capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").rglob("record.json"))
