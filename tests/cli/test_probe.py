"""The verb ``probe`` as a user meets it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import run
from example_findings import run_of
from example_probes import findings_of, probe_of
from example_reports import leave_run, settings
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.cli.probed import print_probed
from sagan_bench.report.findings import findings
from sagan_bench.runs import probe

SETS = [
    part
    for text in (
        *SMALL,
        "run.steps=1",
        "training.batch_size=8",
        "evaluation.bn_batches=1",
        "run.score_weights=[]",
        "run.keep_training_state=false",
    )
    for part in ("--set", text)
]
BEGUN = Path(__file__).parents[1] / "golden" / "begun"
Out = pytest.CaptureFixture[str]


def test_runs_of_a_folder_are_probed_and_shown_together_and_alone(capsys: Out) -> None:
    for variant in ("no-attention", "gamma-fixed-1"):
        out = f"runs/small/{variant}"
        assert run("train", "--variant", variant, "--out", out, *SETS) == 0
    capsys.readouterr()
    assert run("probe", "small", "--images", "8") == 0
    said = capsys.readouterr()
    assert "probed:  1 runs; 0 were there; 1 have no block" in said.out
    path = Path("runs/small/gamma-fixed-1")
    made = probe.read(path)
    assert made is not None
    assert made.primary is not None
    assert path.name in said.out
    assert "1/1 gamma-fixed-1" in said.err
    assert run("probe", "small", "--images", "8", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["probes"] == {str(path): made.model_dump(mode="json")}
    assert (told["made"], len(told["without_block"]), told["failed"]) == ([], 1, {})
    assert run("probe", str(path), "--images", "8") == 0
    text = capsys.readouterr().out
    assert "was there" in text
    assert text.count("temperature-0.5") == 2
    assert "D was not probed: its weights were not kept" in text
    (path / "weights.pt").unlink()
    assert run("probe", "small", "--images", "8") == cli.SOME_FAILED
    assert f"failed: {path}: {path} has no exported weights" in capsys.readouterr().err


def test_an_older_run_is_probed_and_stays_what_it_was(capsys: Out) -> None:
    shutil.unpack_archive(BEGUN / "run-first-release.tar.xz", "runs", filter="data")
    folder = Path("runs/run")
    names = ("record.json", "metrics.jsonl", "weights.pt")
    before = [(folder / name).read_bytes() for name in names]
    assert run("probe", "run", "--images", "4") == 0
    assert "attention8" in capsys.readouterr().out
    assert [(folder / name).read_bytes() for name in names] == before
    assert probe.read(folder)
    assert run("probe", "run", "--metrics", "fit") == cli.USAGE
    assert "--metrics fit: did you mean" in capsys.readouterr().err
    (folder / "weights.pt").unlink()
    assert run("probe", "run", "--images", "4") == cli.USAGE
    assert "runs/run has no exported weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("no-such-run",), "no run"),
        (("begun",), "begun is interrupted (it was stopped)"),
        (("finished", "--images", "3"), "--images"),
        (("all",), "no run in"),
    ],
)
def test_mistakes_are_said(words: tuple[str, ...], text: str, capsys: Out) -> None:
    for name, status in (("begun", "interrupted"), ("all/begun", "failed"), ("finished", None)):
        config = settings("sagan", 0)
        leave_run(Path("runs") / name, config, 0.5, status=status, reason="it was stopped")
    assert run("probe", *words) == cli.USAGE
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_help_needs_no_torch() -> None:
    """As of every verb (tests/cli/test_cli.py): its module imports nothing heavy."""
    import subprocess

    code = "import sys, sagan_bench.cli.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_default_of_the_verb_is_that_of_the_function() -> None:
    import inspect

    from sagan_bench.cli.probe import probe as verb
    from sagan_bench.session.probing import IMAGES

    assert inspect.signature(verb).parameters["images"].default == IMAGES


def test_what_controls_cost_stands_in_a_table_of_its_own(capsys: Out) -> None:
    controls = [run_of("residual", seed, 0.4) for seed in range(5)]
    more = [(r, probe_of(r, has_maps=False, without={"residual16": 0.4})) for r in controls]
    probes = [{"applied": 0.1, "without": {"attention16": 0.1}}] * 5
    print_probed(findings(findings_of([0.5] * 5, [0.3] * 5, probes, more=more)).probes)
    said = capsys.readouterr().out
    assert "A block of G left out" in said
    (row,) = [line.replace("│", " ").split() for line in said.splitlines() if "residual" in line]
    assert row == ["sagan", "residual", "16", "-0.4", "-0.1", "-0.3"]
