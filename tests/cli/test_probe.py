"""The verb ``probe`` as a user meets it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import run
from example_records import stored
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.runs import probe

SETS = [
    part
    for text in (*SMALL, "run.steps=1", "training.batch_size=8", "evaluation.bn_batches=1")
    for part in ("--set", text)
]
STUDY = """
question = "Does it run?"
baseline = "no-attention"
variants = ["gamma-fixed-1"]
seeds = [0]
set.model.attention.discriminator = []
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""
BEGUN = Path(__file__).parents[1] / "golden" / "begun"
Out = pytest.CaptureFixture[str]


def test_a_study_and_a_run_of_it_are_probed_and_shown(tmp_path: Path, capsys: Out) -> None:
    Path("small.toml").write_text(STUDY)
    assert run("ablate", "small.toml", "--in-process", "--no-score", *SETS) == 0
    capsys.readouterr()
    assert run("probe", "small", "--images", "8") == 0
    said = capsys.readouterr()
    assert "probed:  1 runs; 0 were there; 1 have no block" in said.out
    (path,) = Path("runs/small").glob("gamma-fixed-1-*")
    made = probe.read(path)
    assert made is not None
    assert made.primary is not None
    assert path.name in said.out
    assert "probing" in said.err or "1/1" in said.err
    assert run("probe", "small", "--images", "8", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["probes"] == {str(path): made.model_dump(mode="json")}
    assert (told["made"], len(told["without_block"]), told["failed"]) == ([], 1, {})
    assert run("probe", str(path), "--images", "8") == 0
    text = capsys.readouterr().out
    assert "was there" in text
    assert text.count("temperature-0.5") == 2
    assert "D was not probed: it has no block" in text
    (path / "weights.pt").unlink()
    assert run("probe", "small", "--images", "8") == cli.SOME_FAILED
    assert f"failed: {path}: {path} has no exported weights" in capsys.readouterr().err


def test_an_older_run_is_probed_and_stays_what_it_was(tmp_path: Path, capsys: Out) -> None:
    shutil.unpack_archive(BEGUN / "run-first-release.tar.xz", tmp_path, filter="data")
    before = {p: p.read_bytes() for p in (tmp_path / "runs" / "run").glob("*.json*")}
    assert run("probe", "run", "--images", "4") == 0
    assert "attention8" in capsys.readouterr().out
    after = {p: p.read_bytes() for p in (tmp_path / "runs" / "run").glob("*.json*")}
    assert {path: after[path] for path in before if path.name != "config.json"} == {
        path: content for path, content in before.items() if path.name != "config.json"
    }
    assert after.keys() - before.keys() == {tmp_path / "runs" / "run" / "probe.json"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("no-such-run",), "no run"),
        (("begun",), "begun is interrupted"),
        (("finished",), "has no exported weights"),
        (("finished", "--metrics", "fit"), "--metrics fit: did you mean"),
        (("finished", "--images", "3"), "--images"),
        (("all",), "no run in"),
    ],
)
def test_mistakes_are_said(words: tuple[str, ...], text: str, tmp_path: Path, capsys: Out) -> None:
    stored(tmp_path / "runs" / "begun", status="interrupted")
    stored(tmp_path / "runs" / "all" / "begun", status="interrupted")
    stored(tmp_path / "runs" / "finished")
    assert run("probe", *words) == cli.USAGE
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_help_needs_no_torch() -> None:
    """As of every verb (tests/cli/test_cli.py): its module imports nothing heavy."""
    import subprocess

    code = "import sys, sagan_bench.cli.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
