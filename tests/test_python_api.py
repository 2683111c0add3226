"""The package from Python: what docs/python.md shows, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from example_runs import SMALL

import sagan_bench as sb
from sagan_bench.config.layers import parse_set
from sagan_bench.core.errors import UserError
from sagan_bench.report.verdict import Verdict

ROOT = Path(__file__).parents[1]
SETS = dict(map(parse_set, SMALL))


@pytest.mark.slow
def test_what_the_page_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    assert len(code) == 6
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec("\n".join(code), known)
    assert isinstance(known["images"], torch.Tensor)
    assert known["images"].shape == (16, 3, 32, 32)
    assert list(known["table"].verdict)  # type: ignore[attr-defined]
    assert isinstance(known["runs"], pd.DataFrame)
    assert known["state"]["step"] == 20  # type: ignore[index]


def test_a_run_is_trained_loaded_and_looked_at(tmp_path: Path) -> None:
    seen: list[object] = []
    out = tmp_path / "run"
    sets = {key: value for key, value in SETS.items() if key != "run.steps"}
    run = sb.train("no-attention", seed=3, steps=2, sets=sets, out=out, watch=seen.append)
    assert seen
    assert (run.status, run.record.step, run.config.seed) == ("finished", 2, 3)
    again = sb.load(out)
    assert again.record == run.record
    assert again.metrics["twin_rate"] is not None
    assert again.metrics == run.metrics
    assert "finished, step 2" in repr(again)
    assert list(again.rows().step) == [2] or len(again.rows())
    assert again.curve("twin_rate").empty
    assert run.images(3, seed=1).shape == (3, 3, 32, 32)
    assert run.images(3, seed=1).equal(again.images(3, seed=1))
    assert not run.images(3, seed=1).equal(run.images(3, seed=2))
    table = sb.frame(tmp_path)
    assert list(table.variant) == ["no-attention"]


def test_a_study_is_compared_by_its_own_question_and_runs_by_a_baseline() -> None:
    records = ROOT / "reports/example-twins32/records"
    found = sb.compare(records)
    assert isinstance(found, Verdict)
    assert "sagan is better than no-attention" in found.sentence
    assert found.findings.declared
    of_runs = sb.compare(*records.glob("*-s*"), baseline="no-attention", metric="twin_rate")
    assert isinstance(of_runs, Verdict)
    assert not of_runs.findings.declared
    assert list(of_runs.comparisons.verdict) == [None]
    with pytest.raises(UserError, match="--baseline"):
        sb.compare(*records.glob("*-s*"))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is at"):
        sb.load(tmp_path)
    with pytest.raises(UserError, match="no setting is called"):
        sb.train(sets={"training.lr": 1})
    with pytest.raises(AttributeError, match="nothing"):
        sb.nothing  # noqa: B018


def test_importing_it_needs_no_torch_and_names_are_listed() -> None:
    code = (
        "import sys, json, sagan_bench as sb; names = dir(sb); "
        "print(json.dumps([names, 'torch' in sys.modules]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, has_torch = json.loads(told.stdout)
    assert not has_torch
    assert {"train", "load", "frame", "compare", "verdict", "TrainedRun"} <= set(names)


def test_the_package_is_a_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "sagan_bench", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.startswith("sagan-bench ")
